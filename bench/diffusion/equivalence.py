"""Whether samplers are one rule: their trajectories from the same start and the same noise, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from bench.diffusion.grid import make_grid
from bench.diffusion.noise import TrajectoryNoise
from bench.diffusion.orders import MixtureOracle
from bench.diffusion.sampling import Sampler, trajectory
from bench.diffusion.schedule import NoiseSchedule
from bench.errors import BenchError, sentence_of, users_code

SAME = 1e-5
"""Rules that differ by less are one: published codes compute weights in float32."""

ROWS = 64


@dataclass(frozen=True)
class Likeness:
    """How far two samplers lie apart on one grid.

    Attributes:
        one: label of the first.
        other: label of the second.
        steps: S that was asked for.
        differences: the greatest difference of x after every step; x is of size 1. UniPC and SA-Solver yield
            a state before it is corrected.
    """

    one: str
    other: str
    steps: int
    differences: tuple[float, ...]

    @property
    def taken(self) -> int:
        """Number of steps that the grid has, which some rules choose near S."""
        return len(self.differences)

    @property
    def same(self) -> bool:
        """Whether they are one rule on this grid."""
        return max(self.differences) < SAME

    @property
    def verdict(self) -> str:
        """One clause: ``same to 3e-16``, ``same but for the last step``, ``differ from step 2 on``."""
        if self.same:
            return f"same to {max(self.differences):.0e}"
        apart = [step for step, gap in enumerate(self.differences, 1) if gap >= SAME]
        if apart == [len(self.differences)]:
            return f"same but for the last step: {self.differences[-1]:.0e} there"
        if self.differences[-1] < SAME:
            return f"same end to {self.differences[-1]:.0e}, other states from step {apart[0]} on"
        return f"differ from step {apart[0]} on: {self.differences[-1]:.0e} at the end"


def likenesses(samplers: Sequence[Sampler], steps: Sequence[int], spacing: str) -> list[Likeness]:
    """Return how far every two of some samplers lie apart at every S.

    The model is exact: a mixture of Gaussians in one dimension, on Ho et al.'s schedule, in float64.

    Args:
        samplers: two or more.
        steps: the numbers of steps.
        spacing: the rule that chooses the times, see `make_grid`.

    Raises:
        BenchError: if a sampler cannot run on that model, or yields another number of states.
    """
    found = []
    for count in steps:
        walks = [(sampler, walk(sampler, count, spacing)) for sampler in samplers]
        for (one, left), (other, right) in combinations(walks, 2):
            gaps = (left - right).abs().flatten(1).max(dim=1).values
            found.append(Likeness(one.label, other.label, count, tuple(map(float, gaps))))
    return found


def walk(sampler: Sampler, steps: int, spacing: str) -> Tensor:
    """Return x after every step, shape (S, rows, 1, 1, 1), from a start and noise common to all samplers.

    Raises:
        BenchError: if the sampler fails, or yields another number of states than the grid has steps.
    """
    model = MixtureOracle(NoiseSchedule.linear())
    grid = make_grid(model.schedule, steps, spacing)
    source = TrajectoryNoise(0, range(ROWS), model.shape)

    def noise(index: int, draw: int = 0) -> Tensor:
        return source(index, draw).double()

    try:
        walked = trajectory(model, sampler, grid, source.initial().double(), noise)
        states = [state.clone() for state in walked]  # a rule may yield its own memory again
    except BenchError:
        raise
    except users_code() as error:
        raise BenchError(f"sampler {sampler.label!r} failed: {sentence_of(error)}") from error
    if len(states) != len(grid):
        raise BenchError(f"sampler {sampler.label!r} yielded {len(states)} states in {len(grid)} steps")
    return torch.stack(states)
