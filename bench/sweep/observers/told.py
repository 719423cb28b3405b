"""What a tracker is told of a trial: parameters, numbers and texts, each by its name."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.errors import UsageError
from bench.records.frame import frame, plain_rows
from bench.records.record import Record

PARAMETERS = ("model", "sampler", "spacing", "steps", "n", "seed", "batch", "precision", "device")
COSTS = (
    "network_calls",
    "evaluations",
    "sampling_seconds",
    "model_seconds",
    "decoding_seconds",
    "scoring_seconds",
    "images_per_second",
    "peak_bytes",
)
TEXTS = ("kind", "label", "status", "message", "key", "device_name", "commit", "finished", "command")


@dataclass(frozen=True)
class Told:
    """A trial as a tracker keeps it.

    Attributes:
        parameters: what defines it: model, sampler with its parameters, steps, n, seed and so on.
        numbers: every finite score by its metric, with ``_se`` and ``_debiased``; calls and seconds.
        texts: status, key, machine, commit and command.
    """

    parameters: Mapping[str, str | int | float]
    numbers: Mapping[str, float]
    texts: Mapping[str, str]

    @classmethod
    def of(cls, record: Record) -> Told:
        """Return what is told of a record, by the names of its columns in `bench.load_results`."""
        (row,) = plain_rows(frame([record]))
        names = [*PARAMETERS, *record.sampler.parameters]
        measured = [name + end for name in record.scores for end in ("", "_se", "_debiased")]
        return cls(
            {name: _plain(row[name]) for name in names if row.get(name) is not None},
            {name: float(row[name]) for name in [*measured, *COSTS] if _is_finite(row.get(name))},
            {name: str(row[name]) for name in TEXTS if row.get(name)},
        )


def _plain(value: Any) -> str | int | float:
    return value if isinstance(value, str | int | float) else str(value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def require(package: str, name: str, install: str) -> None:
    """Raise UsageError where a tracker's package is missing.

    Args:
        package: import name.
        name: what ``--log`` was given.
        install: what pip installs.
    """
    if importlib.util.find_spec(package) is None:
        raise UsageError(f"--log {name} needs a package that is not there: `pip install {install}`")
