"""A score in parts: what few samples, the network and the solver each add to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.errors import UsageError
from bench.stats.comparison import compare
from bench.stats.score import Score


@dataclass(frozen=True)
class Part:
    """A part of a score.

    Attributes:
        value: what it adds; below 0 where it makes the score better.
        se: its standard error.
    """

    value: float
    se: float


@dataclass(frozen=True)
class Decomposition:
    """A Frechet distance FD_N of a sampler, as the sum of three parts.

    With f the bias-corrected distances of the sampler, of its fine limit and of real images:

        FD_N = [FD_N - f(sampler) + f(real)] + [f(limit) - f(real)] + [f(sampler) - f(limit)]

    Attributes:
        sampling: what is left of the distance without network and solver: the bias of N samples, and what
            keeps real images from the reference.
        network: what the law that the network's exact solution has adds to real images'.
        solver: what too few steps add to the exact solution; paired through the noise that both share.
    """

    sampling: Part
    network: Part
    solver: Part

    @property
    def total(self) -> float:
        """FD_N."""
        return self.sampling.value + self.network.value + self.solver.value


def decompose(score: Score, limit: Score, real: Score | None) -> Decomposition:
    """Return the parts of a sampler's score.

    The error of the sampling part is that of the real images' score; the error of the jackknife's bias
    estimate, of second order, is left out.

    Args:
        score: the score of the sampler's images.
        limit: the score of as many images of its fine limit, from the same noise.
        real: the score of real images; None: as if it were 0, and the network's part holds it.

    Raises:
        UsageError: if the scores cannot be compared, or have no bias correction.
    """
    for one in (score, limit, *([] if real is None else [real])):
        if "rank-deficient" in one.flags or not math.isfinite(one.debiased):
            raise UsageError(
                f"{one.metric} of {one.n:,} images has no bias correction, so that its parts cannot be told"
                " apart: give more images with --n, or a score of fewer features with --metrics"
            )
    floor, floor_se = (0.0, 0.0) if real is None else (real.debiased, real.se)
    solver = compare(score, limit)
    return Decomposition(
        Part(score.value - score.debiased + floor, floor_se),
        Part(limit.debiased - floor, math.hypot(limit.se, floor_se)),
        Part(solver.difference, solver.se),
    )
