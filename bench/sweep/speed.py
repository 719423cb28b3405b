"""How fast a network answers, and what samplers add to it.

Whatever is compared is measured in turns, A B A B, after a warm-up that is not counted, so that a machine
that slows down slows all of it; what is told is a median over the turns and how far they lie apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from bench.device.binding import a_core_each
from bench.device.clock import Clock
from bench.device.precision import PRECISIONS, allow_tf32
from bench.diffusion.conditions import bound
from bench.diffusion.grid import Grid
from bench.diffusion.interfaces import EpsilonModel
from bench.diffusion.noise import TrajectoryNoise
from bench.diffusion.sampling import Sampler
from bench.diffusion.stages import CascadeModel
from bench.errors import BenchError, users_code
from bench.records.trial import Failure
from bench.sweep.meter import metered
from bench.sweep.worker import draw

LEAST_SECONDS = 0.05
"""What is shorter is repeated within a turn until it takes as long: a clock's noise is then below 1%."""


@dataclass(frozen=True)
class Setting:
    """What is measured, and how often.

    Attributes:
        model: the network, on ``device``; of a cascade the first stage.
        grid: the steps of a trajectory, which a bare network is asked about too.
        device: where it runs.
        precision: a key of `PRECISIONS`.
        turns: how often each thing is measured, after its warm-up.
        seed: the seed of the noise.
    """

    model: EpsilonModel
    grid: Grid
    device: torch.device
    precision: str = "float32"
    turns: int = 5
    seed: int = 0

    @property
    def network(self) -> EpsilonModel:
        """The model that the sampler of a trial walks with."""
        return self.model.model if isinstance(self.model, CascadeModel) else self.model


@dataclass(frozen=True)
class Pace:
    """The bare network at one batch.

    Attributes:
        batch: images a call.
        seconds: the seconds of one call, in every turn; none where it failed.
        failure: why there are none.
    """

    batch: int
    seconds: tuple[float, ...] = ()
    failure: str = ""

    @property
    def latency(self) -> float:
        """Median milliseconds of a call."""
        return 1000 * median(self.seconds)

    @property
    def milliseconds(self) -> float:
        """Median milliseconds an image: the latency over the batch."""
        return self.latency / self.batch

    @property
    def throughput(self) -> float:
        """Images a second: the batch over the median seconds of a call."""
        return self.batch / median(self.seconds)

    @property
    def spread(self) -> float:
        """How far the turns lie apart: (greatest - least) / median."""
        return (max(self.seconds) - min(self.seconds)) / median(self.seconds)


@dataclass(frozen=True)
class Overhead:
    """What a sampler takes beside its calls.

    Attributes:
        sampler: the rule.
        calls: network calls of the trajectory.
        seconds: the seconds of the trajectory of a batch, in every turn; none where there was no trajectory.
        ratios: these over the seconds of as many bare calls of the same turn.
        failure: why there are none.
    """

    sampler: Sampler
    calls: int = 0
    seconds: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()
    failure: Failure | None = None

    @property
    def ratio(self) -> float:
        """The median ratio: 1 is a sampler that costs nothing beside the network."""
        return median(self.ratios)


def in_turns(works: Sequence[Callable[[], float]], turns: int) -> list[tuple[float, ...]]:
    """Return what each of some functions measures, in every turn: A B A B, after a warm-up of each.

    Args:
        works: each does something and returns the seconds that it took.
        turns: how often each is asked, after a first time that is not counted.
    """
    for work in works:
        work()
    rounds = [[work() for work in works] for _ in range(turns)]
    return list(zip(*rounds, strict=True))


def call_seconds(model: EpsilonModel, x: Tensor, times: Sequence[Tensor], precision: str) -> float:
    """Return the seconds of bare network calls, one at each of some times.

    The clock runs inside the calls alone: the check of an answer is no part of them.

    Args:
        model: bound to the samples of x.
        x: what it is asked about, float32 (B, C, H, W).
        times: times (B,), one tensor a call.
        precision: a key of `PRECISIONS`.

    Raises:
        ModelError: if the model raises, or its answers are none.
    """
    allow_tf32(precision == "tf32")
    meter = metered(model, Clock(x.device), PRECISIONS[precision])
    with torch.no_grad(), a_core_each(x.device):
        for t in times:
            meter(x, t)
    return meter.clock.seconds


def measure_paces(setting: Setting, batches: Sequence[int]) -> list[Pace]:
    """Return the pace of the bare network at each of some batches, measured in turns.

    A batch that cannot be had, for want of memory or because the model raises, says so in its place.

    Raises:
        BenchError: if none can be had.
    """
    paces, works = [Pace(batch) for batch in batches], dict[int, Callable[[], float]]()
    for place, batch in enumerate(batches):
        try:
            works[place] = _repeated_call(setting, batch)
        except users_code() as error:
            paces[place] = replace(paces[place], failure=Failure.of(error, "model").message)
    if not works:
        raise BenchError(paces[0].failure)
    for place, seconds in zip(works, in_turns(list(works.values()), setting.turns), strict=True):
        paces[place] = replace(paces[place], seconds=seconds)
    return paces


def _repeated_call(setting: Setting, batch: int) -> Callable[[], float]:
    """Return a function that measures a call, as the mean of as many as take `LEAST_SECONDS`."""
    model, x = _asked(setting, batch)
    t = setting.grid[0].times(x)
    call_seconds(model, x, [t], setting.precision)
    once = call_seconds(model, x, [t], setting.precision)
    count = max(1, math.ceil(LEAST_SECONDS / max(once, 1e-6)))
    return lambda: call_seconds(model, x, [t] * count, setting.precision) / count


def _asked(setting: Setting, batch: int) -> tuple[EpsilonModel, Tensor]:
    """Return (the network bound to the first samples, their x_T)."""
    indices, network = range(batch), setting.network
    noise = TrajectoryNoise(setting.seed, indices, network.shape, setting.device)
    return bound(network, indices, setting.seed), noise.initial()


def measure_overheads(setting: Setting, samplers: Sequence[Sampler], batch: int) -> Iterator[Overhead]:
    """Yield what each sampler takes beside its calls, as a sweep draws: noise, arithmetic and checks.

    In every turn a trajectory is drawn, and then the network alone is called as often at the same times:

        overhead = seconds of the trajectory / seconds of its bare calls.

    A sampler that does not fit the model, or raises, says so in its place.

    Args:
        setting: the model and its grid.
        samplers: the rules.
        batch: samples of a trajectory.
    """
    for sampler in samplers:
        try:
            yield _overhead(setting, sampler, batch)
        except users_code() as error:
            yield Overhead(sampler, failure=Failure.of(error, "sampling"))


def _overhead(setting: Setting, sampler: Sampler, batch: int) -> Overhead:
    model, x = _asked(setting, batch)
    later = range(batch, 2 * batch)  # of the first samples a sweep keeps pictures, which takes time once

    def walk() -> tuple[float, float]:
        with torch.no_grad(), a_core_each(setting.device):
            drawn = draw(
                setting.network,
                sampler,
                setting.grid,
                later,
                setting.seed,
                setting.precision,
                setting.device,
            )
        return drawn.cost.sampling_seconds, drawn.cost.calls

    calls = max(1, round(walk()[1]))
    times = [setting.grid[len(setting.grid) * call // calls].times(x) for call in range(calls)]
    seconds, bare = in_turns(
        [lambda: walk()[0], lambda: call_seconds(model, x, times, setting.precision)], setting.turns
    )
    return Overhead(sampler, calls, seconds, tuple(a / b for a, b in zip(seconds, bare, strict=True)))
