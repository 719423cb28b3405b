"""Estimate the second moment of a model's noise at the times of some grids: what analytic variances need."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bench.commands.options import load_plugins, parse_devices, parse_spacing, parse_steps, say_remarks
from bench.data.images import from_uint8
from bench.diffusion.conditions import is_conditional
from bench.diffusion.grid import grid_for
from bench.diffusion.moments import NoiseMoments, noise_moment, read_moments
from bench.diffusion.stages import latents_of
from bench.errors import UsageError
from bench.files.atomic import as_asked, refuse_unwritable, write_atomically
from bench.plugins.cards import LoadedModel
from bench.plugins.lookup import load_model


def execute(options: argparse.Namespace) -> int:
    """Add what the file does not hold yet, time by time, and print it."""
    load_plugins(options.plugin)
    if options.n < 1:
        raise UsageError(f"--n must be at least 1 image, got {options.n}")
    device = parse_devices(options.device)[0]
    loaded = load_model(options.model, device, options.reference)
    known = _known(options.out, loaded, options.n)
    spacing = parse_spacing(options.spacing)
    times = {
        float(t)
        for steps in parse_steps(options.steps)
        for t in grid_for(loaded.model, steps, spacing).timesteps
    }
    missing = sorted(times - set(known.values), reverse=True)
    if missing:
        refuse_unwritable(options.out)
        x0 = _data(loaded, options.n).to(device)
        if known.values and known.images != len(x0):
            raise UsageError(
                f"the moments in {options.out} are of {known.images} images, not {len(x0)}; give"
                f" --n {known.images} or another --out"
            )
        known = replace(known, images=len(x0))
        for t in missing:
            value = noise_moment(loaded.model, x0, t if loaded.model.schedule.continuous else _step(t))
            spent = known.evaluations + len(x0)
            known = replace(known, values={**known.values, t: value}, evaluations=spent)
            with as_asked(options.out):
                write_atomically(options.out, known.text().encode())
            print(f"t = {t:<8g} {value:.6f}")
    print(
        f"{options.out}: {len(known.values)} times, {known.evaluations:,} network evaluations in all;"
        f" use it as --samplers analytic-ddpm:moments={options.out}"
    )
    return 0


def _step(t: float) -> float:
    return int(t) if t.is_integer() else t


def _known(path: Path, loaded: LoadedModel, n: int) -> NoiseMoments:
    """Return what the file holds, or nothing yet.

    Raises:
        UsageError: if it is another model's.
    """
    if not path.exists():
        return NoiseMoments(loaded.card.name, loaded.weights_hash, n)
    known = read_moments(path)
    if known.weights != loaded.weights_hash:
        raise UsageError(
            f"{path} holds moments of {known.model} with other weights than {loaded.card.name} has; choose"
            " another --out"
        )
    return known


def _data(loaded: LoadedModel, n: int) -> Tensor:
    """Return the first n x_0 of the model's data.

    Raises:
        UsageError: if nobody can say what they are.
    """
    name = loaded.card.name
    if is_conditional(loaded.model):
        raise UsageError(f"model {name!r} takes labels, and images without labels do not tell its moments")
    if loaded.reference is None:
        raise UsageError(
            f"model {name!r} does not say what it was trained on; give --reference with images of it"
        )
    data = loaded.reference.data()
    say_remarks(data.remarks)
    with torch.inference_mode():
        x0 = latents_of(loaded.model, from_uint8(data.images[:n]))
    if x0 is None or tuple(x0.shape[1:]) != tuple(loaded.model.shape):
        raise UsageError(
            f"images of {loaded.reference.name} are no x_0 of model {name!r}, of shape {loaded.model.shape}"
        )
    return x0
