"""Measure the reference statistics of an image set, or import others' from an .npz with mu and sigma.

They are kept in the cache by a hash of the images and of the feature space, so a run finds them, and a
changed image or weight file never gets an old answer. A run's records hold the reference hash printed here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from bench.commands.options import load_plugins, parse_devices, print_json, say_remarks
from bench.commands.progress import Measuring
from bench.data.sets import load_images
from bench.errors import UsageError
from bench.files.atomic import as_asked, refuse_unwritable, writing
from bench.metrics.imports import import_npz, is_statistics
from bench.metrics.measuring import reference_statistics
from bench.metrics.metric import check_offered
from bench.metrics.reference import Reference
from bench.metrics.space import Shape, get_space

_SHAPE = "3,32,32"


def execute(options: argparse.Namespace) -> int:
    """Measure or import, and print what identifies the result."""
    metric = load_plugins(options.plugin).metrics.get(options.metric)
    if options.out is not None:
        refuse_unwritable(options.out)
    if is_statistics(options.data):
        space = get_space(metric.space, _shape(options.shape or _SHAPE))
        check_offered(metric, space)
        # Without the number of images, which a run is not told: it is part of the hash.
        found = import_npz(Path(options.data), space.fingerprint, dim=space.dim)
        n = options.n or 0
    else:
        for option in ("n", "shape"):
            if getattr(options, option) is not None:
                raise UsageError(
                    f"--{option} is of the images behind an imported mu and sigma, and {options.data} is"
                    f" measured: leave --{option} out"
                )
        data = load_images(options.data, strict=True)  # as a run reads them
        say_remarks(data.remarks)
        device = parse_devices(options.device)[0]
        shape = (data.images.shape[1], data.images.shape[2], data.images.shape[3])
        space = get_space(metric.space, shape).to(device)
        check_offered(metric, space)
        with Measuring(quiet=options.json) as progress:
            found = reference_statistics(
                data.images, space, name=data.name, needs=metric.needs, device=device, progress=progress
            )
        n = found.n
    if options.out is not None:
        with as_asked(options.out), writing(options.out) as file:  # given a path, savez would append .npz
            np.savez(file, mu=found.mean, sigma=found.cov)
    _show(found, n, as_json=options.json)
    return 0


def _shape(text: str) -> Shape:
    try:
        channels, height, width = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--shape takes three whole numbers with commas between, as in 3,32,32, got {text!r}"
        ) from None
    return channels, height, width


def _show(found: Reference, n: int, *, as_json: bool) -> None:
    facts = {
        "name": found.name,
        "n": n,
        "features": int(found.mean.size),
        "feature space": found.space,
        "data hash": found.data_hash,
        "reference hash": found.hash,
        "trace of the covariance": float(np.trace(found.cov)),
    }
    if as_json:
        print_json(facts)
    else:
        print("\n".join(f"{name:<24} {value}" for name, value in facts.items()))
