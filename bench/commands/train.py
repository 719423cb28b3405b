"""Train a model: a preset by name, or a TOML file with the fields of a training config.

A stopped run goes on where it was: the same command, the same weights to the last bit. Under torchrun every
process takes its share of each batch: torchrun --nproc-per-node 8 -m bench train cifar10-ddpm.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from bench.commands.options import console, parse_devices, warn
from bench.commands.verbosity import is_quiet, say
from bench.device.ranks import own_device
from bench.errors import UsageError
from bench.training import RECIPES, Progress, TrainConfig, TrainResult, read_config, train
from bench.training.autoencoder import train_digits_autoencoder
from bench.training.classifier import CIFAR, DIGITS, train_cifar_classifier, train_digits_classifier
from bench.training.disk import prepare_folder
from bench.training.processes import joined


class Training(Protocol):
    """Trains a network that predicts no noise and writes it to ``path``; returns how good it is."""

    def __call__(self, path: Path, *, seed: int, report: Callable[[str], None]) -> float:
        """Train, calling ``report`` with a line after each epoch."""
        ...


class Apart(NamedTuple):
    """A network that predicts no noise.

    Attributes:
        training: what trains it.
        data: the images it is trained on.
        length: how long.
        ended: what is printed of the number that the training returns.
    """

    training: Training
    data: str
    length: str
    ended: str


APART = {
    "digits-classifier": Apart(
        train_digits_classifier, "digits", f"{DIGITS.epochs} epochs", "held-out accuracy {:.4f}"
    ),
    "cifar-classifier": Apart(
        train_cifar_classifier, "cifar10", f"{CIFAR.epochs} epochs", "held-out accuracy {:.4f}"
    ),
    "digits-autoencoder": Apart(
        train_digits_autoencoder, "digits", "30 epochs", "held-out mean square error {:.5f}"
    ),
}
"""Networks that predict no noise, by name."""


def execute(options: argparse.Namespace) -> int:
    """Train, showing a bar on a terminal and a line a row elsewhere."""
    if options.list:
        _list()
        return 0
    if options.what is None:
        raise UsageError("say what to train: a preset (`sampler-bench train --list`) or a TOML file")
    if options.what in APART:
        return _apart(options)
    config = read_config(options.what)
    changes = {name: getattr(options, name) for name in ("data", "steps", "seed")}
    config = config.but(**{name: value for name, value in changes.items() if value is not None})
    out = options.out or Path("results") / "train" / config.name
    devices = parse_devices(own_device(options.device))
    if len(devices) > 1:
        raise UsageError(
            f"a process trains on one device, got {', '.join(devices)}; start one a device with torchrun"
        )
    device = torch.device(devices[0])
    with joined(device) as processes:
        if processes.writes:
            result = _train(config, out, options, device)
            print(f"{result.steps} steps; averaged weights {result.weights}, table {result.metrics}")
        else:
            train(config, out, resume=not options.fresh, device=device, strict=options.strict, warn=_silent)
    return 0


def _apart(options: argparse.Namespace) -> int:
    """Train a network that predicts no noise, as the shipped one was."""
    name = options.what
    training, data, _, ended = APART[name]
    if options.data is not None or options.steps is not None:
        raise UsageError(f"{name} has one recipe, on {data}: leave --data and --steps out")
    out = options.out or Path("results") / "train" / name
    prepare_folder(out)
    path = out / f"{name}.safetensors"
    print(f"{ended.format(training(path, seed=options.seed or 0, report=_told))}; weights {path}")
    return 0


def _told(line: str) -> None:
    """Print a line of the training, unless progress is unwanted."""
    if not is_quiet():
        print(line)


def _train(config: TrainConfig, out: Path, options: argparse.Namespace, device: torch.device) -> TrainResult:
    terminal = console()
    live = terminal.is_terminal and not is_quiet()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=terminal, disable=not live) as bar:
        task = bar.add_task(config.name, total=config.steps)

        def report(progress: Progress) -> None:
            pace = f"loss {progress.loss:.4f}  {progress.images_per_second:.0f} images/s"
            bar.update(task, completed=progress.step, description=pace)
            if not live:
                say(progress)

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


def _list() -> None:
    for name, config in RECIPES.items():
        size = f"{config.steps:,} steps of {config.batch}"
        print(f"{name:18} {config.data:10} {size:24} {config.summary}")
    for name, (training, data, length, _) in APART.items():
        print(f"{name:18} {data:10} {length:24} {(training.__doc__ or '').partition(',')[0]}")
