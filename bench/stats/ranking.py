"""How sure a ranking is: the groups of samples drawn again and again, and the ranks that come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bench.errors import UsageError
from bench.stats.comparison import corrected, estimate, refuse_mixed
from bench.stats.score import Score

DRAWS = 2000
"""Bootstrap samples."""

LEVEL = 0.95

Values = npt.NDArray[np.float64]
"""What rows are ranked by, (draws, rows); the least is the best."""


@dataclass(frozen=True)
class Rank:
    """Where a row stands in a column.

    Attributes:
        place: its rank by the estimates themselves, 1 for the best.
        best: share of the draws in which it is the best.
        low: lower end of the 95% interval of its rank.
        high: its upper end.
    """

    place: int
    best: float
    low: int
    high: int


@dataclass(frozen=True)
class Agreement:
    """How far two rankings of the same rows agree.

    Attributes:
        tau: Kendall's tau-b of the two orders: 1 for one order, -1 for the reverse.
        low: lower end of the 95% interval.
        high: its upper end.
    """

    tau: float
    low: float
    high: float


def losses(scores: Sequence[Score]) -> Values:
    """Return what rows are ranked by, (1, rows): `estimate` with its sign turned where higher is better."""
    sign = -1.0 if scores[0].higher_is_better else 1.0
    return np.array([[sign * estimate(score) for score in scores]])


def redrawn(scores: Sequence[Score], part: float = 1.0, draws: int = DRAWS, seed: int = 0) -> Values:
    r"""Return what rows are ranked by when their groups are drawn again, with replacement.

    With pseudo-values p_k = G f - (G - 1) f_(-k) of a score's G groups and K_b the groups of draw b,

        f_b = f + sqrt(G / (G - 1)) (mean_{k in K_b} p_k - mean_k p_k),

    whose spread is the jackknife's standard error. Draw b takes the same groups of every row, and of every
    column with as many groups: what samples share of the noise moves together. Samples themselves are not
    drawn: repeated ones would add the bias of few samples once more.

    Args:
        scores: a column's, which can be compared.
        part: the part of the groups that a draw takes; 1/2 tells of half as many samples.
        draws: number of draws.
        seed: the seed of the draws.

    Returns:
        (draws, rows), the least the best.

    Raises:
        UsageError: if scores differ in what they measure, or have fewer than two groups.
    """
    for score in scores[1:]:
        refuse_mixed(scores[0], score)
    left = np.array([score.leave_one_out for score in scores], dtype=np.float64)
    groups = left.shape[1]
    if groups < 2 or not np.isfinite(left).all():
        raise UsageError(f"{scores[0].metric} has {groups} jackknife groups; a ranking needs at least 2")
    count = max(1, round(part * groups))
    chosen = np.random.default_rng(seed).integers(groups, size=(draws, count))
    pseudo = -(groups - 1) * (left - left.mean(axis=1, keepdims=True))
    moved = np.sqrt(groups / (groups - 1)) * pseudo[:, chosen].mean(axis=2).T
    target = scores[0].target
    if target is None:
        return np.asarray(losses(scores) + (-moved if scores[0].higher_is_better else moved))
    return np.asarray(np.abs(np.array([[corrected(score) for score in scores]]) + moved - target))


def ranks(values: Values, drawn: Values) -> list[Rank]:
    """Return where every row stands; equal values share the best chance evenly.

    Args:
        values: what rows are ranked by, (1, rows).
        drawn: the same in every draw, (draws, rows).
    """
    place = _places(values)[0]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(_places(drawn), (tail, 1 - tail), axis=0, method="inverted_cdf")
    first = drawn == drawn.min(axis=1, keepdims=True)
    best = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
    return [Rank(int(p), float(b), int(a), int(z)) for p, b, a, z in zip(place, best, low, high, strict=True)]


def agreement(one: tuple[Values, Values], other: tuple[Values, Values]) -> Agreement:
    """Return how far two rankings of the same rows agree.

    Args:
        one: (values, drawn), as `ranks` takes them.
        other: (values, drawn) of the other; draw b of both took the same groups.

    Raises:
        UsageError: for fewer than two rows.
    """
    if one[0].shape[1] < 2:
        raise UsageError("an order needs at least two rows")
    (tau,) = _kendall(one[0], other[0])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(_kendall(one[1], other[1]), (tail, 1 - tail))
    return Agreement(float(tau), float(low), float(high))


def steadiness(values: Values, drawn: Values) -> Agreement:
    """Return how far a ranking agrees with itself drawn again; tau is the mean over the draws.

    The arguments and what is raised are those of `agreement`.
    """
    fixed = np.broadcast_to(values, drawn.shape)
    found = agreement((values, fixed), (values, drawn))
    return replace(found, tau=float(_kendall(fixed, drawn).mean()))


def _places(values: Values) -> npt.NDArray[np.int64]:
    """Return the ranks along the rows, 1 for the least; of equal values the first comes first."""
    return np.argsort(np.argsort(values, axis=1, kind="stable"), axis=1) + 1


def _kendall(one: Values, other: Values) -> Values:
    """Return Kendall's tau-b of every draw (Kendall 1945, Biometrika 33); 0 where one side is all ties."""
    first, second = _signs(one), _signs(other)
    agreed = np.einsum("ij,ij->i", first, second, dtype=np.float64)
    sizes = np.sqrt(np.abs(first).sum(1, dtype=np.float64) * np.abs(second).sum(1, dtype=np.float64))
    return np.asarray(np.divide(agreed, sizes, out=np.zeros_like(agreed), where=sizes > 0))


def _signs(values: Values) -> npt.NDArray[np.int8]:
    """Return the order of every two rows: -1, 0 or 1, (draws, pairs)."""
    left, right = np.triu_indices(values.shape[1], 1)
    signs: npt.NDArray[np.int8] = np.sign(values[:, left] - values[:, right]).astype(np.int8)
    return signs
