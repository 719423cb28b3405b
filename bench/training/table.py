"""The tables a run writes: losses and pace as it goes, and at its end the losses over ranges of t."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from bench.files.atomic import write_atomically
from bench.records.trainings import COLUMNS

_RANGES = 20  # of t


@dataclass(frozen=True)
class Progress:
    """What a run reports at every row of its table.

    Attributes:
        step: optimiser steps done.
        steps: the number of steps of the whole run.
        loss: mean since the last row of what is minimised.
        simple: mean of L_simple over the same steps.
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
        path: the path of the file.
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


def write_losses_by_t(path: Path, by_t: Tensor) -> None:
    """Write the mean losses over ranges of t as CSV.

    Args:
        path: the path of the file.
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
