"""Draw blocks of samples and measure them, on one device."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from bench.data.images import to_device, to_uint8
from bench.device.allocator import keep_freed_memory
from bench.device.binding import a_core_each
from bench.device.clock import Clock, free_memory, peak_memory, reset_peak_memory
from bench.device.modes import EAGER
from bench.device.precision import PRECISIONS, allow_tf32, own_float32
from bench.device.state import PROCESS, PUT_BACK, changed_since, put_back, read_state, seed_everything
from bench.diffusion.answers import ModelError, check_function
from bench.diffusion.conditions import bound, labels_in
from bench.diffusion.film import Film
from bench.diffusion.grid import Grid, Step, grid_for
from bench.diffusion.interfaces import EpsilonModel, Prediction
from bench.diffusion.noise import INITIAL, TrajectoryNoise, normal_noise
from bench.diffusion.sampling import Sampler, get_sampler, trajectory
from bench.diffusion.stages import CascadeModel, Decodes, image_shape, images_of
from bench.errors import BenchError, users_code
from bench.metrics.groups import GroupedStatistics
from bench.metrics.levels import Levels
from bench.metrics.metric import spaces_of
from bench.metrics.space import FeatureSpace, features_of
from bench.plugins.cards import LoadedModel
from bench.plugins.loading import registry
from bench.plugins.lookup import load_model
from bench.records.trial import BlockImages, BlockResult, Cost, Failure, Task, Trial, WorkerSetup, kept_of
from bench.sweep.meter import metered
from bench.sweep.readiness import AS_IT_IS, Readiness, is_out_of_memory
from bench.sweep.tolerances import TOLERANCES


class Drawn(NamedTuple):
    """Samples of one block, and what drawing them took.

    Attributes:
        x0: the end of the trajectories, float32 (B, C, H, W); of a latent model decoded.
        film: uint8 frames of sample 0 on its way, (frames, C, H, W); none where the block does not hold it.
        cost: calls and seconds of sampling.
        labels: what the samples were drawn for, int64 (B,); None where the model takes no labels.
    """

    x0: Tensor
    film: Tensor
    cost: Cost
    labels: Tensor | None = None


def _tell_nobody(stage: str) -> None:
    """Let a stage pass."""


def draw(
    model: EpsilonModel,
    sampler: Sampler,
    grid: Grid,
    indices: range,
    seed: int,
    precision: str,
    device: torch.device,
    reached: Callable[[str], None] = _tell_nobody,
) -> Drawn:
    """Draw the samples with some indices: noise, trajectory, and nothing that any other sample decides.

    Args:
        model: the noise predictor, on ``device``.
        sampler: the rule.
        grid: the steps.
        indices: the indices of the samples; with the seed they decide the noise.
        seed: the seed of the noise.
        precision: a key of `PRECISIONS`.
        device: where the samples are drawn.
        reached: told the stage, as in ``step 3``, so that an error can say where it came up.

    Raises:
        ModelError: if the model's answers are none, or not finite.
        BenchError: if the result is not finite through the sampler's fault.
    """
    allow_tf32(precision == "tf32")
    model = bound(model, indices, seed)
    noise = TrajectoryNoise(seed, indices, model.shape, device)
    first, stages = (model.model, model.stages) if isinstance(model, CascadeModel) else (model, ())
    drawn = _walked(first, sampler, grid, noise, precision, reached)
    for number, stage in enumerate(stages, start=1):
        reached(f"binding of stage {number + 1}")
        above = replace(noise, stage=number)
        larger = stage.bound_to(drawn.x0, above)
        rule = stage.sampler or sampler
        steps = grid_for(larger, stage.steps or grid.requested, stage.spacing or grid.spacing)
        above = replace(above, shape=larger.shape)
        later = _walked(larger, rule, steps, above, precision, reached, stage.temperature)
        drawn = later._replace(cost=drawn.cost.with_upsampler(later.cost))
    return drawn._replace(labels=labels_in(model))


def _walked(
    model: EpsilonModel,
    sampler: Sampler,
    grid: Grid,
    noise: TrajectoryNoise,
    precision: str,
    reached: Callable[[str], None],
    temperature: float = 1.0,
) -> Drawn:
    """Draw with one model that is bound to its samples, and decode what it draws."""
    device = torch.device(noise.device)
    meter = metered(model, Clock(device), PRECISIONS[precision])
    whole, decoding, each = Clock(device), Clock(device), len(noise.indices)
    film = Film(len(grid)) if noise.indices[0] == 0 else None

    reached("step 1")
    with whole.running():
        x = noise.initial()
        if temperature != 1:
            x *= temperature
        if film:
            film.see(0, x)
        for taken, x in enumerate(trajectory(meter, sampler, grid, x, noise), start=1):  # noqa: B020
            reached(f"step {taken + 1}")
            if film:
                film.see(taken, x)
    reached("result")
    if not bool(torch.isfinite(x).all()):
        looking = metered(model, Clock(device), PRECISIONS[precision], finite=True)
        for _ in trajectory(looking, sampler, grid, noise.initial() * temperature, noise):
            pass  # once more, to see who is at fault: looking at every answer would cost every trial time
        raise BenchError(f"sampler {sampler.label!r} returned values that are not finite")
    with decoding.running():
        images = images_of(model, x)
    decodes = isinstance(model, Decodes)
    cost = Cost(
        calls=meter.rows / each,
        sampling_seconds=whole.seconds,
        model_seconds=meter.clock.seconds,
        evaluations=meter.evaluations / each,
        gradients=meter.gradients / each,
        decoder_evaluations=float(decodes),
        decoding_seconds=decoding.seconds if decodes else 0.0,
    )
    decode = partial(images_of, model)
    frames = film.images(decode) if film else torch.empty((0, *images.shape[1:]), dtype=torch.uint8)
    return Drawn(images, frames, cost)


@dataclass
class Worker:
    """A model and the feature spaces on one device, ready to draw blocks."""

    loaded: LoadedModel
    device: torch.device
    spaces: Mapping[str, FeatureSpace]
    keep_features: frozenset[str]
    backs_off: bool = False
    _asked: dict[tuple[int, str], tuple[float, float]] = field(default_factory=dict)
    """The least and the greatest time at which the model was checked, by size of block and precision."""
    _fits: int | None = None
    """Samples that memory holds at a time, as far as it was found too small; None where it never was."""

    def __post_init__(self) -> None:
        if self.device.type == "cpu":
            keep_freed_memory()

    @cached_property
    def readiness(self) -> Readiness:
        """The model made ready to be run otherwise than it is."""
        return Readiness(self.loaded.model, repr(self.loaded.card.name), self.device)

    @classmethod
    def make(cls, setup: WorkerSetup, device: str) -> Worker:
        """Load what the setup names.

        Raises:
            BenchError: if something it names is missing, damaged or unknown.
        """
        for file in setup.plugins:
            registry().load_file(file)
        loaded = load_model(setup.model, device, setup.reference, setup.held_out)
        metrics = [registry().metrics.get(name) for name in setup.metrics or loaded.metrics]
        shape = image_shape(loaded.model)
        spaces = spaces_of(metrics, shape, device)
        keep = frozenset(m.space for m in metrics if m.needs == "features" or setup.keep_features)
        return cls(loaded, torch.device(device), spaces, keep, setup.backs_off)

    def __call__(self, task: Task, told: Callable[[str], None] = _tell_nobody) -> BlockResult | Failure:
        """Draw and score a block; whatever a plugin raises comes back as a `Failure`.

        Global generators are seeded for the block, and all that is global is put back after it: what is drawn
        does not depend on the blocks that this process drew before.

        Args:
            task: the block.
            told: told the stage whenever one is reached, as in ``step 3``.
        """
        with put_back(PUT_BACK), own_float32():
            ready = self._make_ready(task, told)  # first: a compiler changes the environment, and may dice
            if isinstance(ready, Failure):
                return ready
            seed_everything(_seed_of(task))
            before = read_state(PROCESS)
            outcome = self._draw(task, told)
            if isinstance(outcome, BlockResult):
                outcome.changed = tuple(changed_since(before, PROCESS))
                outcome.answers, outcome.ready_seconds = ready, self.readiness.seconds
        return outcome

    def _draw(self, task: Task, told: Callable[[str], None]) -> BlockResult | Failure:
        trial, block = task.trial, task.block
        stage = ""

        def reached(place: str) -> None:
            nonlocal stage
            stage = place
            told(place)

        reached("setup")
        try:
            with torch.no_grad():  # not inference mode: a classifier's gradient turns gradients on
                return self._in_parts(trial, block, reached)
        except ModelError as error:
            return Failure.of(error, f"model at {stage}")
        except users_code() as error:
            return Failure.of(error, stage)

    def _make_ready(self, task: Task, told: Callable[[str], None]) -> float | Failure | None:
        """Prepare the networks for a trial's mode and precision, where they are not run as they are.

        Return how far their answers are then from before, or why it cannot be.
        """
        trial = task.trial
        if (trial.mode, trial.precision) == AS_IT_IS:
            return None
        told("setup")
        batch = min(self._fits or len(task.block), len(task.block))
        try:
            grid = grid_for(self.loaded.model, trial.steps, trial.spacing)
            return self.readiness.make_ready(trial.mode, trial.precision, batch, grid, trial.seed)
        except users_code() as error:
            return None if is_out_of_memory(error) else Failure.of(error, "model at setup")

    def _in_parts(self, trial: Trial, block: range, reached: Callable[[str], None]) -> BlockResult:
        """Draw and score a block whole, or in parts where memory did not hold it and parts are allowed."""
        most = min(self._fits or len(block), len(block))
        while True:
            try:
                return joined([self._part(trial, part, reached) for part in _split(block, most)])
            except users_code() as error:
                if not self.backs_off or most == 1 or not is_out_of_memory(error):
                    raise
            most = self._fits = -(-most // 2)  # the error is gone, and with it what its frames held
            free_memory(self.device)

    def _part(self, trial: Trial, block: range, reached: Callable[[str], None]) -> Scored:
        sampler = get_sampler(trial.sampler)
        grid = grid_for(self.loaded.model, trial.steps, trial.spacing)
        self._warm_up(trial, len(block), grid, reached)
        reset_peak_memory(self.device)
        with self.readiness.running(trial.mode), a_core_each(self.device):
            drawn = draw(
                self.loaded.model, sampler, grid, block, trial.seed, trial.precision, self.device, reached
            )
        reached("scoring")
        return self._score(trial, block, drawn)

    def _score(self, trial: Trial, block: range, drawn: Drawn) -> Scored:
        clock = Clock(self.device)
        with clock.running():
            images = to_uint8(drawn.x0)
            levels = Levels.of(images, drawn.x0)
            statistics = self.measure(images, block, trial.n, drawn.x0, drawn.labels)
        previews = kept_of(images, block.start).cpu()
        cost = drawn.cost + Cost(scoring_seconds=clock.seconds, peak_bytes=peak_memory(self.device))
        kept = (BlockImages.of(images, levels),)
        return Scored(BlockResult(block, statistics, cost, previews, drawn.film, levels, kept), images)

    def measure(
        self,
        images: Tensor,
        indices: range,
        n: int,
        x0: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[str, GroupedStatistics]:
        """Return the statistics of samples ``indices`` of n, by feature space.

        Args:
            images: uint8 (B, C, H, W).
            indices: the indices of the samples.
            n: number of samples of the whole trial.
            x0: what the images were rounded from; spaces that take it are left out where there is none.
            labels: what the samples were drawn for; likewise.
        """
        statistics = {}
        images = to_device(images, self.device)
        x0 = None if x0 is None else x0.to(self.device)
        for name, space in self.spaces.items():
            features = features_of(space, images, x0, labels)
            if features is None:
                continue
            sums = GroupedStatistics(n, space.dim, keep_features=name in self.keep_features)
            sums.add(features, list(indices))
            statistics[name] = sums.close()
        return statistics

    def measure_all(self, images: Tensor, blocks: Iterable[range]) -> dict[str, GroupedStatistics]:
        """Return the statistics of all of some images (N, C, H, W), measured a block of them at a time."""
        total: dict[str, GroupedStatistics] = {}
        with torch.inference_mode():
            for block in blocks:
                part = self.measure(images[block.start : block.stop], block, len(images))
                for space, sums in part.items():
                    if space in total:
                        total[space].merge(sums)
                    else:
                        total[space] = sums
        return total

    def _warm_up(self, trial: Trial, batch: int, grid: Grid, reached: Callable[[str], None]) -> None:
        """Call the network and the spaces, so that no first call is timed, and see whether it is a function.

        A grid whose times all lie within those of earlier trials costs nothing.

        Raises:
            ModelError: if it is none; see `check_function`.
        """
        if trial.mode != EAGER:
            self.readiness.make_ready(trial.mode, trial.precision, batch, grid, trial.seed)
        key, model = (batch, trial.precision), self.loaded.model
        first, middle, last = grid[0], grid[len(grid) // 2], grid[len(grid) - 1]
        low, high = self._asked.get(key, (math.inf, -math.inf))
        steps = [step for step in (first, last) if step.t < low or step.t > high]
        if not steps:
            return
        if key not in self._asked:
            steps = list({step.t: step for step in (first, middle, last)}.values())
        x = normal_noise(trial.seed, range(batch), INITIAL, model.shape, device=self.device)

        def ask(x: Tensor, rows: Sequence[int], step: Step) -> Prediction:
            reached("setup")  # every call of the network is a sign of life
            mine = bound(model, rows, trial.seed)
            answer = metered(mine, Clock(self.device), PRECISIONS[trial.precision])(x, step.times(x))
            return answer._replace(raw_variance=None) if model.variance == "fixed" else answer

        check_function(repr(self.loaded.card.name), ask, x, steps, TOLERANCES[trial.precision].answers)
        images = torch.zeros((batch, *image_shape(model)), device=self.device)
        labels = torch.zeros(batch, dtype=torch.int64, device=self.device)
        for space in self.spaces.values():
            reached("setup")
            features_of(space, to_uint8(images), images, labels)
        self._asked[key] = min(low, last.t), max(high, first.t)


class Scored(NamedTuple):
    """What is left of a block or a part of it, and its uint8 images (B, C, H, W), which will not be kept."""

    result: BlockResult
    images: Tensor


def joined(parts: Sequence[Scored]) -> BlockResult:
    """Return a block that was drawn in parts, as if it had been drawn whole but for their number."""
    (whole, _), *others = parts
    if not others:
        return whole
    size = len(whole.block)
    for other, _ in others:
        whole.extend(other)
    images = torch.cat([images.cpu() for _, images in parts])
    whole.images, whole.batch = (BlockImages.of(images, whole.levels),), size
    return whole


def _split(block: range, most: int) -> list[range]:
    """Return the parts of a block, of ``most`` samples each but for the last."""
    return [block[start : start + most] for start in range(0, len(block), most)]


def _seed_of(task: Task) -> int:
    """Return the seed of the global generators for a block, so that no two blocks draw alike from them."""
    text = f"{task.trial.seed} {task.block.start}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@functools.cache
def worker(setup: WorkerSetup, device: str) -> Worker:
    """Return this process's worker for a set-up and a device, made once."""
    return Worker.make(setup, device)
