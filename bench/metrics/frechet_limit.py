"""The Frechet distance at infinitely many samples, by extrapolation over subsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from bench.device.threads import in_threads
from bench.errors import UsageError
from bench.metrics.frechet_score import FrechetMetric
from bench.metrics.groups import GroupedStatistics, Needs
from bench.metrics.metric import scored
from bench.metrics.moments import Moments
from bench.metrics.parts import cut, sum_of_groups
from bench.metrics.reference import Reference
from bench.stats.resampling import jackknife
from bench.stats.score import Score

PARTS = (1, 2, 4, 5)
"""Numbers of equal parts that the samples are cut into: distances of N, N/2, N/4 and N/5 samples."""

TOLERANCE = 1e-5  # of a cautious bound, for the values without a group, which carry the error alone


@dataclass(frozen=True)
class FrechetLimit:
    """The Frechet distance extrapolated to infinitely many samples: FID_inf in the Inception space.

    The bias of FD_N is C/N to first order with C depending on the model (Chong & Forsyth 2020,
    arXiv:1911.07023, section 3), so that the intercept of a straight line through FD_N over 1/N is free of
    it. They draw random subsets of 15 sizes; here the samples are cut into 1, 2, 4 and 5 equal parts of whole
    jackknife groups, and the distances of the parts of one size are averaged: the same subsets every time,
    and every sample in one of each size. Lower is better; the unit is that of the squared features.

    The least-squares line through the four points gives the value. No correction is left to be made:
    ``debiased`` is the value. The jackknife error is right or cautious, 1.0 to 1.4 times the spread:
    a part without one of its few groups is much smaller than the others.

    Attributes:
        name: column name.
        space: name of the feature space.
        quantisation: the quantisation of the samples before their features.
        fewest: the least number of samples: four groups of one in each fifth.
    """

    name: str
    space: str
    quantisation: str = "uint8"
    needs: Needs = "moments"
    higher_is_better: bool = False
    fewest: int = 4 * max(PARTS)

    def score(self, sample: GroupedStatistics, reference: Reference) -> Score:
        """Return the intercept with its jackknife error.

        Flag: ``rank-deficient`` where the smallest part, a group left out, is too small for a covariance of
        full rank: its bias is then not of order 1/N, and the line does not hold.

        Raises:
            UsageError: for samples or groups that are too few, or a reference of another dimension.
        """
        groups = sample.present
        if sample.count < self.fewest:
            raise UsageError(f"{self.name} needs at least {self.fewest} samples, got {sample.count}")
        if reference.mean.shape[0] != sample.dim:
            raise UsageError(
                f"{self.name}: the samples have {sample.dim} features and reference {reference.name!r} has"
                f" {reference.mean.shape[0]}; build the reference in the same feature space"
            )
        levels = [_Level.of(sample, cut(groups, parts, self.name), reference) for parts in PARTS]
        value = intercept([level.point() for level in levels])
        left = [intercept([level.point(without=group) for level in levels]) for group in groups]
        found = jackknife(value, left)
        fewest = min(n for level in levels for n, _ in level.without.values())
        deficient = ["rank-deficient"] if fewest - 1 < sample.dim else []
        singular = [] if reference.frechet.full_rank else ["singular-reference"]
        return scored(self, sample, reference, found, corrected=False, flags=(*deficient, *singular))


@dataclass(frozen=True)
class _Level:
    """The distances of the parts of one size.

    Attributes:
        part_of: the number of the part that each group lies in.
        whole: (number of samples, distance) of each part.
        without: the same of the part that holds a group, without that group, by group.
    """

    part_of: dict[int, int]
    whole: list[tuple[int, float]]
    without: dict[int, tuple[int, float]]

    @classmethod
    def of(cls, sample: GroupedStatistics, parts: Sequence[Sequence[int]], reference: Reference) -> _Level:
        """Measure the parts, one after the other: of 2048 features a part's moments are 34 MB."""
        made = cls({}, [], {})
        for place, groups in enumerate(parts):
            moments = sum_of_groups(sample, groups)
            made.whole.append((moments.n, reference.frechet.distance_to(moments)))
            found = in_threads(partial(_without, moments, sample, reference), groups)
            made.part_of.update(dict.fromkeys(groups, place))
            made.without.update(zip(groups, found, strict=True))
        return made

    def point(self, without: int | None = None) -> tuple[float, float]:
        """Return (mean of 1/n, mean distance) over the parts, one of them without a group."""
        parts = list(self.whole)
        if without is not None:
            parts[self.part_of[without]] = self.without[without]
        return float(np.mean([1.0 / n for n, _ in parts])), float(np.mean([one for _, one in parts]))


def _without(
    moments: Moments, sample: GroupedStatistics, reference: Reference, group: int
) -> tuple[int, float]:
    rest = moments - sample.group(group)
    return rest.n, reference.frechet.distance_to(rest, tolerance=TOLERANCE)


def intercept(points: Sequence[tuple[float, float]]) -> float:
    """Return where the least-squares line through points (x, y) meets x = 0."""
    x, y = np.array(points, dtype=np.float64).T
    slope = float(np.sum((x - x.mean()) * (y - y.mean())) / np.sum((x - x.mean()) ** 2))
    return float(y.mean()) - slope * float(x.mean())


def limit_of(metric: FrechetMetric) -> FrechetLimit:
    """Return the limit of a Frechet distance: ``fid_inf`` of ``fid``, ``fd_inf_X`` of ``fd_X``."""
    family, separator, space = metric.name.partition("_")
    return FrechetLimit(f"{family}_inf{separator}{space}", metric.space, metric.quantisation)
