"""Download a file on request, check it, and put it where it is looked for.

``fetch inception`` gets the FID network, ``dinov2`` and ``clip`` other feature spaces' networks, ``cifar10``
the images, and the name of a checkpoint that ``list models`` shows that checkpoint. Nothing else here uses
the network. Where the connection breaks the download goes on from there, after a pause.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from bench.commands.options import console
from bench.commands.verbosity import is_quiet, say
from bench.errors import UnknownNameError
from bench.metrics.reference import cache_folder
from bench.metrics.weights import FILES, WeightFile
from bench.plugins.loading import registry

# The size is the publisher's; the hash is from public sources and was not checked against the file here.
CIFAR10 = WeightFile(
    name="cifar-10-python.tar.gz",
    size=170_498_071,
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    variable="SAMPLER_BENCH_DATA",
    fetch="sampler-bench fetch cifar10",
)


def execute(options: argparse.Namespace) -> int:
    """Download, with a bar on a terminal, and print the path."""
    files = {**FILES, "cifar10": CIFAR10}
    checkpoints = registry().downloads
    name = options.name.removeprefix("hub:")
    if name not in files and name not in checkpoints:
        raise UnknownNameError("file to fetch", name, [*files, *checkpoints])
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    terminal = console()
    live = terminal.is_terminal and not is_quiet()
    with _warnings_said(), Progress(*columns, console=terminal, disable=not live) as bar:
        task = bar.add_task(name, total=None)

        def arrived(path: Path, done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, description=path.name)

        if name in files:
            usual = Path(os.environ.get("SAMPLER_BENCH_DATA", "data")) if name == "cifar10" else None
            folder = options.out or usual or cache_folder() / "weights"
            path = files[name].download(folder, partial(arrived, Path(files[name].name)))
        else:
            path = checkpoints.get(name)(options.out, arrived)
    print(path)
    return 0


@contextmanager
def _warnings_said() -> Iterator[None]:
    """Print what a download warns of as remarks of this command, within."""

    class Remarks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    log, remarks = logging.getLogger("bench.files"), Remarks()
    log.addHandler(remarks)
    try:
        yield
    finally:
        log.removeHandler(remarks)
