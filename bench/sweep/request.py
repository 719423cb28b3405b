"""What a sweep is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from bench.device.modes import EAGER, Mode
from bench.diffusion.interfaces import EpsilonModel
from bench.diffusion.sampling import Sampler
from bench.diffusion.schedule import NoiseSchedule
from bench.diffusion.spacing import steps_of
from bench.diffusion.stages import unclipped
from bench.errors import UsageError
from bench.records.ledger import check_numbers

AUTO = "auto"
"""Asks for what is found out here: the fastest mode and precision that are admitted."""


@dataclass(frozen=True)
class Sweep:
    """What ``run`` was asked for.

    Attributes:
        model: what ``--model`` takes.
        samplers: one row of the table each.
        steps: one column each.
        calls: network calls in the place of steps: every sampler takes the most steps that cost no more.
        unasked: whether the numbers of steps are the default ones, which nobody asked for: those above the
            model's T stand for T, and a sampler is left out above the number that it is made for.
        n: samples a trial.
        seed: the seed of the noise, common to all trials.
        spacings: rules that choose the time steps, as many rows of each sampler.
        spacing_at: another rule at some numbers of steps.
        batch: samples at a time; the model's default where None.
        auto_batch: whether the largest batch that pays is looked for, and a block that memory does not hold
            is drawn in parts.
        precision: the key in `PRECISIONS` of the network's arithmetic, or ``auto`` with the mode ``auto``.
        mode: how the network is run, see `bench.device.modes.Mode`, or ``auto``: the fastest one that is
            admitted.
        devices: torch devices.
        metrics: names; the model's default where empty.
        reference: image set to score against instead of the model's.
        held_out: image set whose score is the row of real images, instead of the model's.
        executor: its name, with options as in ``ray:gpus_per_worker=0.5``.
        shard: (I, N): every N-th trial from the I-th, in the order of `trials`; N machines make all of them.
        timeout: seconds that a step of a block may take in a worker process; made of what is measured where
            None.
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
    spacings: tuple[str, ...] = ("uniform",)
    batch: int | None = None
    precision: str = "float32"
    devices: tuple[str, ...] = ("cpu",)
    metrics: tuple[str, ...] = ()
    reference: str | None = None
    held_out: str | None = None
    executor: str = "serial"
    strict: bool = False
    plugins: tuple[Path, ...] = ()
    spacing_at: Mapping[int, str] = field(default_factory=dict)
    keep_features: bool = False
    unasked: bool = False
    calls: tuple[int, ...] = ()
    timeout: float | None = None
    mode: str = EAGER
    auto_batch: bool = False
    shard: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if self.mode != AUTO:
            Mode.parse(self.mode)
        if self.precision == AUTO != self.mode:
            raise UsageError("--precision auto belongs to --mode auto: name a precision")
        check_numbers(n=self.n, batch=self.batch, seed=self.seed, steps=self.steps, what="samples")
        if not self.samplers:
            raise UsageError(
                "no sampler was asked for; give --samplers all or names from `sampler-bench list samplers`"
            )
        if not self.steps and not self.calls:
            raise UsageError("no number of steps was asked for; give --steps 10,20,50")
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise UsageError(f"--timeout takes seconds above 0, got {self.timeout:g}")
        if self.calls and min(self.calls) < 1:
            raise UsageError(f"--calls takes numbers from 1 on, got {min(self.calls)}")

    @property
    def devices_here(self) -> tuple[str, ...]:
        """What this process can use of them: the CPU where only the machines that draw have a GPU."""
        elsewhere = torch.device(self.devices[0]).type == "cuda" and not torch.cuda.is_available()
        return ("cpu",) if elsewhere else self.devices

    def spacings_of(self, steps: int) -> tuple[str, ...]:
        """Return the rules that choose S time steps; of several, a list where it has S times."""
        if steps in self.spacing_at:
            return (self.spacing_at[steps],)
        if len(self.spacings) == 1:
            return self.spacings
        return tuple(one for one in self.spacings if steps in (steps_of(one) or (steps,)))

    def too_many(self, sampler: Sampler, steps: int) -> bool:
        """Return whether a sampler is left out: nobody asked for S, and it is made for fewer."""
        return self.unasked and sampler.most_steps is not None and steps > sampler.most_steps

    def fitted_to(self, model: EpsilonModel) -> Sweep:
        """Return the sweep as a model allows it: its numbers of steps and its samplers, each once.

        Only steps that nobody asked for are changed, and of a model of latents alone the clip; see
        `unclipped`.
        """
        steps, schedule = self.steps, model.schedule
        if self.unasked and isinstance(schedule, NoiseSchedule):
            steps = tuple(sorted({min(s, schedule.T) for s in steps}))
        samplers = tuple(dict.fromkeys(unclipped(model, one) for one in self.samplers))
        return replace(self, steps=steps, samplers=samplers)

    def trials(self) -> Iterator[tuple[Sampler, int, str]]:
        """Yield (sampler, steps, spacing) of every trial of a sweep over numbers of steps."""
        for steps in self.steps:
            for spacing in self.spacings_of(steps):
                for sampler in self.samplers:
                    if not self.too_many(sampler, steps):
                        yield sampler, steps, spacing
