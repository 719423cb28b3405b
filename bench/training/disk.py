"""What becomes of a run when its folder cannot be written to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import BenchError, UsageError


class TrainingError(BenchError):
    """The run cannot go on; the message says at which step and why."""


def prepare_folder(out: Path) -> None:
    """Make a run's folder.

    Raises:
        UsageError: if it cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot write to {out}: {error.strerror or type(error).__name__}; choose --out DIR"
        ) from None


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turn what the disk refuses into a sentence.

    Raises:
        TrainingError: for any OSError inside.
    """
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"cannot write to {out}: {error.strerror or type(error).__name__}; the last checkpoint"
            " is kept, and the same command goes on from it"
        ) from error
