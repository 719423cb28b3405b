"""Train a model: a preset by name, or a TOML file with the fields of a training config.

A stopped run goes on where it was: the same command, the same weights to the last bit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from bench.commands.common import console, parse_devices, warn
from bench.errors import UsageError
from bench.training import PRESETS, Progress, TrainConfig, TrainResult, get_preset, train
from bench.training.processes import joined, own_device


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("what", metavar="PRESET|CONFIG.toml", help=f"one of {', '.join(PRESETS)}, or a file")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to [results/train/NAME]")
    parser.add_argument("--data", metavar="IMAGES", help="image folder, .npz or name [the preset's]")
    parser.add_argument("--steps", type=int, help="optimiser steps [the preset's]")
    parser.add_argument("--seed", type=int, help="of everything random [the preset's]")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    parser.add_argument("--strict", action="store_true", help="stop at an image that cannot be decoded")
    parser.add_argument("--fresh", action="store_true", help="refuse to go on from a checkpoint in DIR")


def execute(options: argparse.Namespace) -> int:
    """Train, showing a bar on a terminal and a line a row elsewhere."""
    config = _config(options.what)
    changes = {name: getattr(options, name) for name in ("data", "steps", "seed")}
    config = config.but(**{name: value for name, value in changes.items() if value is not None})
    out = options.out or Path("results") / "train" / config.name
    device = torch.device(parse_devices(own_device(options.device))[0])
    with joined(device) as processes:
        if processes.writes:
            result = _train(config, out, options, device)
            print(f"{result.steps} steps; averaged weights {result.weights}, table {result.metrics}")
        else:
            train(config, out, resume=not options.fresh, device=device, strict=options.strict, warn=_silent)
    return 0


def _train(config: TrainConfig, out: Path, options: argparse.Namespace, device: torch.device) -> TrainResult:
    terminal = console()
    live = terminal.is_terminal
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=terminal, disable=not live) as bar:
        task = bar.add_task(config.name, total=config.steps)

        def report(progress: Progress) -> None:
            bar.update(task, completed=progress.step, description=f"loss {progress.loss:.4f}")
            if not live:
                print(progress, file=sys.stderr, flush=True)

        return train(
            config,
            out,
            resume=not options.fresh,
            device=device,
            report=report,
            strict=options.strict,
            warn=warn,
        )


def _silent(sentence: str) -> None:
    """Say nothing: the first process does."""


def _config(what: str) -> TrainConfig:
    """Return the config for a preset's name or a TOML file.

    Raises:
        UsageError: if the file is missing or not such a config.
    """
    path = Path(what)
    if path.suffix != ".toml":
        return get_preset(what)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"training config {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"training config {path} is not TOML: {error}") from None
    try:
        return TrainConfig.from_mapping(values)
    except TypeError as error:
        raise UsageError(f"training config {path}: {error}; values: {json.dumps(values)[:200]}") from None
