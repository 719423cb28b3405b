"""What a sweep is asked for, and what it comes to given the records that are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.diffusion.grid import Grid
from bench.diffusion.sampling import Sampler
from bench.errors import UsageError
from bench.records.record import Record, Stale
from bench.records.store import Unreadable
from bench.records.trial import Trial


@dataclass(frozen=True)
class Sweep:
    """What ``run`` was asked for.

    Attributes:
        model: what ``--model`` takes.
        samplers: one row of the table each.
        steps: one column each.
        n: samples a trial.
        seed: of the noise, common to all trials.
        spacing: rule that chooses the time steps.
        spacing_at: another rule at some numbers of steps.
        batch: samples at a time; the model's default where None.
        precision: of the network's arithmetic.
        devices: torch devices.
        metrics: names; the model's default where empty.
        reference: image set to score against instead of the model's.
        executor: its name.
        strict: stop at the first failure.
        plugins: plugin files.
        keep_features: keep the feature vectors of every trial that is computed, under ``features/``.

    Raises:
        UsageError: for what can be seen to be impossible without a model.
    """

    model: str
    samplers: tuple[Sampler, ...]
    steps: tuple[int, ...] = (10, 20, 50, 100, 1000)
    n: int = 1000
    seed: int = 0
    spacing: str = "uniform"
    batch: int | None = None
    precision: str = "float32"
    devices: tuple[str, ...] = ("cpu",)
    metrics: tuple[str, ...] = ()
    reference: str | None = None
    executor: str = "serial"
    strict: bool = False
    plugins: tuple[Path, ...] = ()
    spacing_at: Mapping[int, str] = field(default_factory=dict)
    keep_features: bool = False

    def __post_init__(self) -> None:
        if self.n < 2:
            raise UsageError(f"--n must be at least 2 samples, got {self.n}")
        if self.batch is not None and self.batch < 1:
            raise UsageError(f"--batch must be at least 1, got {self.batch}")
        if self.seed < 0:
            raise UsageError(f"--seed must not be negative, got {self.seed}")
        if not self.samplers:
            raise UsageError(
                "no sampler was asked for; give --samplers all or names from `python -m bench list samplers`"
            )
        if not self.steps or min(self.steps) < 1:
            raise UsageError(
                f"every number of steps must be at least 1, got {', '.join(map(str, self.steps))}"
            )

    def spacing_of(self, steps: int) -> str:
        """Return the rule that chooses S time steps."""
        return self.spacing_at.get(steps, self.spacing)


@dataclass
class Plan:
    """What a sweep comes to, given what is there.

    Attributes:
        trials: every cell, in order.
        grids: by trial key.
        reused: records that answer their trial.
        stale: records that no longer do.
        featureless: records without the feature vectors that are to be kept.
        unreadable: record files that are damaged.
        pending: trials to compute.
        provenance: by trial key.
    """

    trials: list[Trial] = field(default_factory=list)
    grids: dict[str, Grid] = field(default_factory=dict)
    reused: dict[str, Record] = field(default_factory=dict)
    stale: list[Stale] = field(default_factory=list)
    featureless: list[Record] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    pending: list[Trial] = field(default_factory=list)
    provenance: dict[str, dict[str, Any]] = field(default_factory=dict)
