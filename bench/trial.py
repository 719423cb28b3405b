"""A trial: one cell of the table, drawn in blocks of samples."""

from __future__ import annotations

import functools
import hashlib
import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.cards import LoadedModel, load_model
from bench.errors import BenchError, NotApplicable
from bench.film import Film
from bench.grid import Grid, make_grid
from bench.images import to_device, to_uint8
from bench.interfaces import EpsilonModel
from bench.meter import Clock, Meter, peak_memory, reset_peak_memory
from bench.metrics.base import FeatureSpace, get_space, is_quantised
from bench.metrics.groups import GroupedStatistics
from bench.noise import INITIAL, normal_noise
from bench.plugins import registry
from bench.precision import allow_tf32
from bench.sampler import Sampler, get_sampler, trajectory

PREVIEWS = 16
"""Images of each trial that are kept to look at: the first ones."""

PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""What the network may compute in: float32 is never TF32 by default of a GPU; the last two are autocast."""


@dataclass(frozen=True)
class Trial:
    """What defines a cell; two trials with equal fields give equal images.

    Attributes:
        model: what ``--model`` was given.
        sampler: rule and parameters, as text: `get_sampler` reads it.
        spacing: rule that chooses the time steps.
        steps: S, the number of steps asked for.
        n: number of samples.
        seed: of the noise.
        batch: samples drawn at once: a block.
        precision: dtype of the network's arithmetic; the state is float32 always.
        device: ``cpu`` or ``cuda``.
        metrics: names of the scores; the first is the table's.
        reference: image set scored against where the user chose it, else None.
    """

    model: str
    sampler: str
    spacing: str
    steps: int
    n: int
    seed: int
    batch: int
    precision: str
    device: str
    metrics: tuple[str, ...]
    reference: str | None = None

    @cached_property
    def key(self) -> str:
        """Hash of the fields, 16 hex digits."""
        text = json.dumps({**self.to_json(), "metrics": sorted(self.metrics)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {**{k: v for k, v in self.__dict__.items() if k != "key"}, "metrics": list(self.metrics)}

    @property
    def blocks(self) -> list[range]:
        """Sample indices of every block, in order."""
        return [range(i, min(i + self.batch, self.n)) for i in range(0, self.n, self.batch)]


@dataclass(frozen=True)
class Task:
    """One block of one trial: the unit of work, of resuming and of spreading over devices."""

    trial: Trial
    block: range


@dataclass(frozen=True)
class Cost:
    """What drawing and scoring took, added up over blocks.

    Attributes:
        calls: network calls of one sample's trajectory, counted.
        sampling_seconds: from x_T to x_0, with the noise.
        model_seconds: the network's part of it.
        scoring_seconds: from x_0 to features.
        peak_bytes: greatest memory use, of the GPU where there is one, else of the process.
    """

    calls: float = 0
    sampling_seconds: float = 0
    model_seconds: float = 0
    scoring_seconds: float = 0
    peak_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            max(self.calls, other.calls),
            self.sampling_seconds + other.sampling_seconds,
            self.model_seconds + other.model_seconds,
            self.scoring_seconds + other.scoring_seconds,
            max(self.peak_bytes, other.peak_bytes),
        )


@dataclass
class BlockResult:
    """What is left of a block once its images are scored.

    Attributes:
        block: sample indices.
        statistics: sums by jackknife group, by feature space.
        cost: of this block.
        previews: uint8 images of the sample indices below `PREVIEWS`, (k, C, H, W), maybe none.
        film: uint8 frames of sample 0 on its way, (frames, C, H, W); none in other blocks.
    """

    block: range
    statistics: dict[str, GroupedStatistics]
    cost: Cost
    previews: Tensor
    film: Tensor

    def extend(self, other: BlockResult) -> None:
        """Add the block that comes next.

        Blocks are added in the order of their indices, so that the sums are the same to the last bit
        whatever order they were drawn in.

        Raises:
            ValueError: if ``other`` does not begin where this ends.
        """
        if other.block.start != self.block.stop:
            raise ValueError(f"block {other.block} does not follow {self.block}")
        for name, sums in self.statistics.items():
            sums.merge(other.statistics[name])
        self.block = range(self.block.start, other.block.stop)
        self.cost = self.cost + other.cost
        self.previews = torch.cat([self.previews, other.previews])


@dataclass(frozen=True)
class Failure:
    """Why a trial has no scores.

    Attributes:
        status: ``skipped`` where sampler and model do not fit, else ``failed``.
        stage: what was being done.
        message: one sentence.
        traceback: the full text.
    """

    status: str
    stage: str
    message: str
    traceback: str = ""

    @classmethod
    def of(cls, error: Exception, stage: str) -> Failure:
        """Describe an exception."""
        if isinstance(error, NotApplicable):
            return cls("skipped", stage, str(error))
        text = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        return cls("failed", stage, text, "".join(traceback.format_exception(error)))


@dataclass(frozen=True)
class WorkerSetup:
    """What a process needs to draw blocks; picklable.

    Attributes:
        model: what ``--model`` was given.
        reference: image set the user chose, or None.
        metrics: names of the scores.
        plugins: plugin files to load.
        keep_features: keep every feature vector, not only where a metric needs them.
    """

    model: str
    reference: str | None
    metrics: tuple[str, ...]
    plugins: tuple[Path, ...] = ()
    keep_features: bool = False


class Drawn(NamedTuple):
    """Samples of one block, and what drawing them took.

    Attributes:
        x0: the end of the trajectories, float32 (B, C, H, W).
        film: uint8 frames of sample 0 on its way, (frames, C, H, W); none where the block does not hold it.
        cost: calls and seconds of sampling.
    """

    x0: Tensor
    film: Tensor
    cost: Cost


def draw(
    model: EpsilonModel,
    sampler: Sampler,
    grid: Grid,
    indices: range,
    seed: int,
    precision: str,
    device: torch.device,
    reached: Callable[[str], None] = lambda stage: None,
) -> Drawn:
    """Draw the samples with some indices: noise, trajectory, and nothing that any other sample decides.

    Args:
        model: the noise predictor, on ``device``.
        sampler: the rule.
        grid: the steps.
        indices: of the samples; with the seed they decide the noise.
        seed: of the noise.
        precision: a key of `PRECISIONS`.
        device: where the samples are drawn.
        reached: told the stage, as in ``step 3``, so that an error can say where it came up.

    Raises:
        BenchError: if the result is not finite.
    """
    shape = model.shape
    allow_tf32(precision == "tf32")
    meter = Meter(model, Clock(device), PRECISIONS[precision])
    whole = Clock(device)
    film = Film(len(grid)) if indices.start == 0 else None

    def noise(index: int) -> Tensor:
        return normal_noise(seed, indices, index + 1, shape, device=device)

    reached("step 1")
    with whole.running():
        x = normal_noise(seed, indices, INITIAL, shape, device=device)
        if film:
            film.see(0, x)
        for taken, x in enumerate(trajectory(meter, sampler, grid, x, noise), start=1):  # noqa: B020
            reached(f"step {taken + 1}")
            if film:
                film.see(taken, x)
    reached("result")
    if not bool(torch.isfinite(x).all()):
        raise BenchError(f"sampler {sampler.label!r} returned values that are not finite")
    frames = film.images() if film else torch.empty((0, *shape), dtype=torch.uint8)
    return Drawn(x, frames, Cost(meter.evaluations / len(indices), whole.seconds, meter.clock.seconds))


@dataclass
class Worker:
    """A model and the feature spaces on one device, ready to draw blocks."""

    loaded: LoadedModel
    device: torch.device
    spaces: Mapping[str, FeatureSpace]
    keep_features: frozenset[str]
    _warm: set[tuple[int, str]] = field(default_factory=set)

    @classmethod
    def make(cls, setup: WorkerSetup, device: str) -> Worker:
        """Load what the setup names.

        Raises:
            BenchError: if something it names is missing, damaged or unknown.
        """
        for file in setup.plugins:
            registry().load_file(file)
        loaded = load_model(setup.model, device, setup.reference)
        metrics = [registry().metrics.find(name) for name in setup.metrics]
        spaces = {m.space: get_space(m.space, loaded.model.shape).to(device) for m in metrics}
        keep = frozenset(m.space for m in metrics if m.needs == "features" or setup.keep_features)
        return cls(loaded, torch.device(device), spaces, keep)

    def __call__(self, task: Task) -> BlockResult | Failure:
        """Draw and score a block; whatever a plugin raises comes back as a `Failure`."""
        trial, block = task.trial, task.block
        stage = "setup"

        def reached(place: str) -> None:
            nonlocal stage
            stage = place

        try:
            sampler = get_sampler(trial.sampler)
            grid = make_grid(self.loaded.model.schedule, trial.steps, trial.spacing)
            with torch.inference_mode():
                self._warm_up(trial, len(block))
                reset_peak_memory(self.device)
                drawn = draw(
                    self.loaded.model, sampler, grid, block, trial.seed, trial.precision, self.device, reached
                )
                reached("scoring")
                return self._score(trial, block, drawn)
        except Exception as error:
            return Failure.of(error, stage)

    def _score(self, trial: Trial, block: range, drawn: Drawn) -> BlockResult:
        clock = Clock(self.device)
        with clock.running():
            images = to_uint8(drawn.x0)
            statistics = self.measure(images, block, trial.n, drawn.x0)
        previews = images[: max(0, PREVIEWS - block.start)].cpu()
        cost = drawn.cost + Cost(scoring_seconds=clock.seconds, peak_bytes=peak_memory(self.device))
        return BlockResult(block, statistics, cost, previews, drawn.film)

    def measure(
        self, images: Tensor, indices: range, n: int, x0: Tensor | None = None
    ) -> dict[str, GroupedStatistics]:
        """Return the statistics of samples ``indices`` of n, by feature space.

        Args:
            images: uint8 (B, C, H, W).
            indices: of the samples.
            n: number of samples of the whole trial.
            x0: what the images were rounded from; spaces that take it are left out where there is none.
        """
        statistics = {}
        images = to_device(images, self.device)
        x0 = None if x0 is None else x0.to(self.device)
        for name, space in self.spaces.items():
            given = images if is_quantised(space) else x0
            if given is None:
                continue
            sums = GroupedStatistics(n, space.dim, keep_features=name in self.keep_features)
            sums.add(space(given), list(indices))
            statistics[name] = sums.close()
        return statistics

    def _warm_up(self, trial: Trial, batch: int) -> None:
        """Call the network and the spaces once, so that no first call is timed."""
        key = (batch, trial.precision)
        if key in self._warm:
            return
        shape = self.loaded.model.shape
        x = torch.zeros((batch, *shape), device=self.device)
        times = torch.zeros(batch, dtype=torch.int64, device=self.device)
        Meter(self.loaded.model, Clock(self.device), PRECISIONS[trial.precision])(x, times)
        normal_noise(0, range(batch), INITIAL, shape, device=self.device)
        for space in self.spaces.values():
            space(to_uint8(x) if is_quantised(space) else x)
        self._warm.add(key)


@functools.cache
def worker(setup: WorkerSetup, device: str) -> Worker:
    """Return this process's worker for a set-up and a device, made once."""
    return Worker.make(setup, device)
