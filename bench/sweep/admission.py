"""Modes admitted to a sweep: each sampler's images held to those of the network as it is, in float32.

Few steps and many are the same network; where a sampler divides by a small noise level an error of its
answers grows, and that differs with the sampler. So each one draws a block at the fewest of its numbers of
steps, once in the mode and once as it is, from the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from bench.device.modes import EAGER, Mode
from bench.plugins.executor import Outcome
from bench.records.record import DrawingInfo
from bench.records.trial import PREVIEWS, BlockResult, Failure, Task, Trial
from bench.sweep.readiness import AS_IT_IS, ModeRefused
from bench.sweep.tolerances import TOLERANCES

Draw = Callable[[Sequence[Task]], Iterable[tuple[Task, Outcome]]]
"""Draws blocks, wherever a sweep draws them."""


@dataclass(frozen=True)
class Compared:
    """A sampler's images in a mode beside those of the network as it is.

    Attributes:
        answers: greatest difference of the network's answers, as a part of the greatest value.
        images: mean absolute difference of the images, in levels of 256.
        count: number of images.
        steps: numbers of steps that they were drawn in.
        ready_seconds: what making ready took.
    """

    answers: float
    images: float
    count: int
    steps: int
    ready_seconds: float

    @property
    def info(self) -> DrawingInfo:
        """What a record says of it."""
        return DrawingInfo(self.answers, self.images, self.count, self.steps, self.ready_seconds)


def is_as_it_is(trial: Trial) -> bool:
    """Return whether the network of a trial is run as it is, in float32."""
    return (trial.mode, trial.precision) == AS_IT_IS


def fewest_steps(trials: Iterable[Trial]) -> list[Trial]:
    """Return of each sampler the trial of the fewest steps: the one that is compared."""
    found: dict[str, Trial] = {}
    for trial in sorted(trials, key=lambda one: one.steps):
        found.setdefault(trial.sampler, trial)
    return list(found.values())


def compare_images(trials: Sequence[Trial], draw: Draw) -> dict[tuple[str, str, str], Compared]:
    """Return what a mode changes in the images of some trials, by what `compared_as` returns of each.

    A sampler that does not fit the model, or fails with the network as it is, is left out: its trial will say
    so.

    Args:
        trials: at most one of a sampler, all in one mode.
        draw: draws blocks.

    Raises:
        ModeRefused: if the mode does not work, or images differ by more than `TOLERANCES` allows.
    """
    pairs = {key: task for trial in trials for key, task in _pair(trial)}
    outcomes = {compared_as(task.trial): outcome for task, outcome in draw(list(pairs.values()))}
    found: dict[tuple[str, str, str], Compared] = {}
    for trial in trials:
        own, other = (outcomes.get(key) for key, _ in _pair(trial))
        if not isinstance(own, BlockResult) or other is None:
            continue
        if isinstance(other, Failure):
            raise ModeRefused(_with_mode(trial, other.message))
        found[compared_as(trial)] = _compared(trial, own, other)
    return found


def compared_as(trial: Trial) -> tuple[str, str, str]:
    """Return what images are compared by, for all numbers of steps: sampler, mode and precision."""
    return trial.sampler, trial.mode, trial.precision


def _pair(trial: Trial) -> Iterator[tuple[tuple[str, str, str], Task]]:
    """Yield the block of a trial as it is and in its mode: a whole one where that is what was made ready."""
    as_it_is = replace(trial, mode=EAGER, precision="float32")
    whole = Mode.parse(trial.mode).engine != EAGER
    block = range(trial.batch if whole else min(trial.batch, PREVIEWS))
    for one in (as_it_is, trial):
        yield compared_as(one), Task(one, block)


def _compared(trial: Trial, own: BlockResult, other: BlockResult) -> Compared:
    apart, most = levels_apart(own.previews, other.previews), TOLERANCES[trial.precision].images
    if not apart <= most:
        raise ModeRefused(
            f"mode {trial.mode} in {trial.precision} is refused: {trial.sampler} at S={trial.steps} draws"
            f" images that differ by {apart:.2g} of 256 levels on average from those of the network as it is"
            f" in float32, and {most:g} is allowed"
        )
    return Compared(other.answers or 0.0, apart, len(own.previews), trial.steps, other.ready_seconds)


def levels_apart(own: Tensor, other: Tensor) -> float:
    """Return the mean absolute difference of uint8 images, in levels."""
    return float((own.float() - other.float()).abs().mean())


def _with_mode(trial: Trial, message: str) -> str:
    """Return why a mode is refused, with its name where the message has none."""
    if message.startswith("mode "):
        return message
    return f"mode {trial.mode} in {trial.precision} is refused: {trial.sampler} at S={trial.steps}: {message}"
