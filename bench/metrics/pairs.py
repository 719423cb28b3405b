"""How far two sets of samples lie apart in a feature space: sample by sample, and as distributions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.errors import UsageError
from bench.metrics.frechet import FrechetReference
from bench.metrics.groups import GROUPS, GroupedStatistics
from bench.stats.resampling import Jackknife, jackknife

Rows = npt.NDArray[np.floating]
"""Feature vectors (n, d)."""


@dataclass(frozen=True)
class Gap:
    """The distance between two sets of samples, in squared features as the Frechet distance is.

    Attributes:
        paths: mean of |f(x_i) - f(y_i)|^2 over the samples i, which began as the same noise.
        laws: squared Frechet distance of the two sets, bias-corrected; at most ``paths``, since pairing the
            samples by their noise is one transport between the sets and the distance is the cheapest of
            their moments' (Gelbrich 1990, Mathematische Nachrichten 147).
    """

    paths: Jackknife
    laws: Jackknife


def gap(one: Rows, other: Rows, groups: int = GROUPS) -> Gap:
    """Return how far two sets of samples lie apart; jackknife group k of both is left out together.

    Args:
        one: feature vectors (n, d).
        other: feature vectors (n, d); row i is from the same noise as row i of ``one``.
        groups: number of jackknife groups.

    Raises:
        UsageError: for sets of other sizes or of fewer than 2 samples.
    """
    if one.shape != other.shape or len(one) < 2:
        raise UsageError(
            f"two sets are compared sample by sample: give 2 samples or more and the same number of both, got"
            f" {one.shape} and {other.shape}"
        )
    return Gap(_paths(one, other, groups), _laws(one, other, groups))


def _paths(one: Rows, other: Rows, groups: int) -> Jackknife:
    each = np.square(one.astype(np.float64) - other).sum(axis=1)
    count = min(groups, len(each))
    parts = np.arange(len(each)) * count // len(each)  # as GroupedStatistics has them
    left = [float(each[parts != group].mean()) for group in range(count)]
    return jackknife(float(each.mean()), left)


def _laws(one: Rows, other: Rows, groups: int) -> Jackknife:
    first, second = _grouped(one, groups), _grouped(other, groups)
    whole, beside = first.total, second.total
    left = [
        FrechetReference(rest.mean, rest.cov, rank=rest.n - 1).distance_to(first.leave_out(group, whole))
        for group in first.present
        if (rest := second.leave_out(group, beside)).n > 1
    ]
    value = FrechetReference(beside.mean, beside.cov, rank=beside.n - 1).distance_to(whole)
    return jackknife(value, left)


def _grouped(rows: Rows, groups: int) -> GroupedStatistics:
    sums = GroupedStatistics(len(rows), rows.shape[1], groups)
    sums.add(rows, range(len(rows)))
    return sums
