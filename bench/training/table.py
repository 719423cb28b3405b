"""The tables a run writes: losses and pace as it goes, and at its end the losses over ranges of t."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from bench.atomic import write_atomically
from bench.errors import BenchError

COLUMNS = (
    "step",
    "images",
    "loss",
    "simple",
    "vlb_bits_per_dim",
    "gradient_norm",
    "learning_rate",
    "images_per_second",
    "seconds",
)
_RANGES = 20  # of t


@dataclass(frozen=True)
class Progress:
    """What a run reports at every row of its table.

    Attributes:
        step: optimiser steps done.
        steps: of the whole run.
        loss: mean since the last row of what is minimised.
        simple: likewise of L_simple.
        images_per_second: since the last row.
        eta_seconds: until the end at that pace.
    """

    step: int
    steps: int
    loss: float
    simple: float
    images_per_second: float
    eta_seconds: float

    def __str__(self) -> str:
        return (
            f"step {self.step}/{self.steps}  loss {self.loss:.5f}  L_simple {self.simple:.5f}"
            f"  {self.images_per_second:.0f} images/s  {self.eta_seconds / 60:.1f} min left"
        )


class MetricsTable:
    """A CSV file with the columns `COLUMNS`, a row every few steps.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, step: int) -> None:
        """Keep the rows up to ``step``, as the steps after it are computed again; 0 for a new table."""
        rows: list[list[str]] = []
        if step and self.path.exists():
            with self.path.open(newline="") as file:
                whole = [row for row in csv.reader(file) if len(row) == len(COLUMNS) and row[0].isdigit()]
            rows = [row for row in whole if int(row[0]) <= step]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([COLUMNS, *rows])
        write_atomically(self.path, text.getvalue().encode())

    def append(self, *row: float) -> None:
        """Add a row."""
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(row)

    def read(self) -> dict[str, list[float]]:
        """Return the columns by name."""
        with self.path.open(newline="") as file:
            rows = list(csv.reader(file))[1:]
        return {name: [float(row[i]) for row in rows] for i, name in enumerate(COLUMNS)}


def read_metrics(path: Path, shown: str = "") -> Mapping[str, Sequence[float]]:
    """Return the columns of a table that may be anybody's, by name.

    Args:
        path: of the file.
        shown: how a message names it, the path where empty.

    Raises:
        BenchError: if it is no table of ascending steps with at least L_simple, every value a number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            names, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _damaged(shown or path, getattr(error, "strerror", None) or "it is no text") from None
    missing = [name for name in ("step", "simple") if name not in names]
    if missing:
        raise _damaged(shown or path, f"it has no column {missing[0]!r}")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names) or not all(map(_is_number, row)):
            raise _damaged(shown or path, f"row {number} is not {len(names)} numbers")
    table = {name: [float(row[i]) for row in rows] for i, name in enumerate(names)}
    steps = table["step"]
    if not steps or not all(0 < a < b for a, b in pairwise([*steps, math.inf])):
        raise _damaged(shown or path, "its steps do not ascend")
    if not any(map(math.isfinite, table["simple"])):
        raise _damaged(shown or path, "its column 'simple' has no finite value")
    return table


def _damaged(path: Path | str, reason: str) -> BenchError:
    return BenchError(
        f"training table {path} cannot be used: {reason}; restore the metrics.csv that the training wrote, or"
        " remove it"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_losses_by_t(path: Path, by_t: Tensor) -> None:
    """Write the mean losses over ranges of t as CSV.

    Args:
        path: of the file.
        by_t: for every t the number of draws and the sums of L_simple and of L_vlb, (3, T).
    """
    count, simple, vlb = by_t
    T = len(count)
    ranges = min(_RANGES, T)
    edges = [round(k * T / ranges) for k in range(ranges + 1)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("first_t", "last_t", "draws", "simple", "vlb_bits_per_dim"))
        for first, end in pairwise(edges):
            n = count[first:end].sum()
            sums = [float(v[first:end].sum() / n.clamp(min=1)) for v in (simple, vlb)]
            writer.writerow((first, end - 1, int(n), *sums))
