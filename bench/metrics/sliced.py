"""Sliced Wasserstein distance: the distance of distributions, not of their first two moments."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bench.errors import UsageError
from bench.hooks import hookimpl
from bench.metrics.groups import GroupedStatistics, Needs
from bench.metrics.metric import Metric, scored
from bench.metrics.moments import Array
from bench.metrics.reference import Reference
from bench.stats.resampling import jackknife
from bench.stats.score import Score

_DIRECTIONS = 256
_PROJECTED: weakref.WeakKeyDictionary[Reference, Array] = weakref.WeakKeyDictionary()


def directions(dim: int, count: int = _DIRECTIONS) -> Array:
    """(dim, count) unit vectors, uniform on the sphere and always the same ones."""
    drawn = np.random.Generator(np.random.Philox(key=dim)).standard_normal((dim, count))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=0))


def sorted_distance(x: Array, y: Array) -> float:
    """Mean over columns of the squared 2-Wasserstein distance between sorted columns x (n, p), y (m, p).

    In one dimension W_2^2 is the integral of (F^-1(u) - G^-1(u))^2; where n and m differ the quantiles of y
    are interpolated linearly at u = (i + 1/2) / n.
    """
    n, m = len(x), len(y)
    if n != m:
        place = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
        low = np.minimum(place.astype(np.int64), m - 2) if m > 1 else np.zeros(n, dtype=np.int64)
        share = (place - low)[:, None]
        y = y[low] * (1 - share) + y[np.minimum(low + 1, m - 1)] * share
    return float(np.mean((x - y) ** 2))


@dataclass(frozen=True)
class SlicedWasserstein:
    """Squared sliced 2-Wasserstein distance times d, over 256 fixed directions.

    SW^2 = E_theta W_2^2(theta . x, theta . y) (Bonneel et al. 2015, doi:10.1007/s10851-014-0506-3). Times d
    it has the size of the Frechet distance: between Gaussians of equal covariance both are
    |mu_x - mu_y|^2, on average over directions. Like that it is biased upwards at finite n, and zero only
    for equal distributions.

    Attributes:
        name: column name.
        space: name of the feature space.
        quantisation: the quantisation of the samples.
    """

    name: str
    space: str
    needs: Needs = "features"
    higher_is_better: bool = False
    quantisation: str = "uint8"

    def score(self, sample: GroupedStatistics, reference: Reference) -> Score:
        """Return the distance with its jackknife error; UsageError where features were not kept."""
        theta = directions(sample.dim)
        if reference not in _PROJECTED:
            _PROJECTED[reference] = np.sort(
                reference.need_features(self.name).astype(np.float64) @ theta, axis=0
            )
        target = _PROJECTED[reference]
        if not sample.count:
            raise UsageError(f"{self.name} needs samples")
        projected = sample.features.astype(np.float64) @ theta
        groups = sample.slices
        value = sorted_distance(np.sort(projected, axis=0), target)
        left = [
            sorted_distance(np.sort(np.delete(projected, g, axis=0), axis=0), target)
            for g in (groups if len(groups) > 1 else [])
        ]
        found = jackknife(sample.dim * value, [sample.dim * v for v in left])
        return scored(self, sample, reference, found)


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer ``sliced_wasserstein_pixels``."""
    return [SlicedWasserstein("sliced_wasserstein_pixels", "pixels")]
