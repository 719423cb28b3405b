"""The table of a training: loss and pace, one row every few steps."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from bench.errors import BenchError
from bench.spec import is_number

TRAINING_TABLE = "metrics.csv"
"""Name of the table that a training leaves beside its weights."""


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


def read_metrics(path: Path, shown: str = "") -> Mapping[str, Sequence[float]]:
    """Return the columns of a table that may be anybody's, by name.

    Args:
        path: the path of the file.
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
        if len(row) != len(names) or not all(map(is_number, row)):
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
