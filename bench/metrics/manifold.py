"""Precision, recall, density and coverage: neighbourhoods of real and of generated images."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from bench.errors import UsageError
from bench.hooks import hookimpl
from bench.metrics.groups import GroupedStatistics, Needs
from bench.metrics.metric import Metric, reference_flags
from bench.metrics.moments import Array
from bench.metrics.reference import Reference
from bench.stats.resampling import jackknife
from bench.stats.score import Score

Which = Literal["precision", "recall", "density", "coverage"]
WHICH: tuple[Which, ...] = ("precision", "recall", "density", "coverage")

NEIGHBOURS: dict[Which, int] = {"precision": 3, "recall": 3, "density": 5, "coverage": 5}
"""k of each: Kynkaanniemi et al. 2019 use 3, Naeem et al. 2020 use 5."""

_TILE = 1024


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """The four measures of one sample, and each without one group.

    Attributes:
        values: the values by name.
        leave_one_out: the values without each jackknife group by name, (G,).
    """

    values: dict[Which, float]
    leave_one_out: dict[Which, Array]


def neighbourhoods(fake: torch.Tensor, real: torch.Tensor, groups: Sequence[slice]) -> Neighbourhoods:
    """Return the measures of ``fake`` (n, d) against ``real`` (m, d), in tiles of the n x m distances.

    With r_k(z) the distance from z to its k-th nearest neighbour in its own set:
    precision: share of fake y within r_3(x) of any real x; recall: share of real x within r_3(y) of any
    fake y (Kynkaanniemi et al. 2019, arXiv:1904.06991, eq. 2); density: mean number of real x with
    |y - x| <= r_5(x), over 5; coverage: share of real x with any fake y within r_5(x) (Naeem et al. 2020,
    arXiv:2002.09797, eqs. 3 and 5).

    Raises:
        UsageError: if either set, or the fakes without one group, has no k-th neighbour.
    """
    largest = max(NEIGHBOURS.values())
    left_out = max(g.stop - g.start for g in groups) if len(groups) > 1 else 0
    if min(len(real), len(fake) - left_out) <= largest:
        raise UsageError(
            f"neighbourhoods need more than {largest} reference images, got {len(real)}, and more than"
            f" {largest} samples beside the {left_out} of a jackknife group, got {len(fake)}"
        )
    radius = {k: _radii(real, [slice(0, len(real))], k)[0] for k in set(NEIGHBOURS.values())}
    around_fake = _radii(fake, groups, NEIGHBOURS["recall"])

    within = torch.zeros(len(fake), dtype=torch.bool)
    hits = torch.zeros(len(fake), dtype=torch.float64)
    covering = torch.zeros(len(real), len(groups), dtype=torch.int64)
    recalled = torch.zeros(len(real), 1 + len(groups), dtype=torch.bool)
    for rows in _tiles(len(real)):
        distance = _squared(real[rows], fake)
        within |= (distance <= radius[NEIGHBOURS["precision"]][rows, None]).any(0)
        inside = distance <= radius[NEIGHBOURS["density"]][rows, None]
        hits += inside.sum(0)
        for g, group in enumerate(groups):
            covering[rows, g] = inside[:, group].sum(1)
        recalled[rows, 0] = (distance <= around_fake[0]).any(1)
        for g, group in enumerate(groups):
            near = distance <= around_fake[1 + g]
            near[:, group] = False
            recalled[rows, 1 + g] = near.any(1)

    whole: dict[Which, float] = {
        "precision": float(within.double().mean()),
        "recall": float(recalled[:, 0].double().mean()),
        "density": float(hits.mean()) / NEIGHBOURS["density"],
        "coverage": float((covering.sum(1) > 0).double().mean()),
    }
    left: dict[Which, Array] = {
        "precision": _means_without(within.double().numpy(), groups),
        "recall": recalled[:, 1:].double().mean(0).numpy(),
        "density": _means_without(hits.numpy(), groups) / NEIGHBOURS["density"],
        "coverage": ((covering.sum(1, keepdim=True) - covering) > 0).double().mean(0).numpy(),
    }
    return Neighbourhoods(whole, left)


@dataclass(frozen=True)
class ManifoldMetric:
    """One of the four; a reference larger than the sample is thinned evenly to the same number.

    Radii shrink as a set grows, so that only equal numbers can be compared.

    Attributes:
        name: column name.
        space: name of the feature space.
        which: the measure.
        fewest: the least number of samples: each has its neighbours without any jackknife group too.
    """

    name: str
    space: str
    which: Which
    needs: Needs = "features"
    higher_is_better: bool = True
    fewest: int = max(NEIGHBOURS.values()) + 2

    def score(self, sample: GroupedStatistics, reference: Reference) -> Score:
        """Return the measure with its jackknife error. Flag: ``fewer-references`` than samples.

        ``debiased`` is the value: the measures are defined at equal numbers, and leaving samples out changes
        what recall and coverage mean. For the same reason their errors are cautious, 1.3 to 1.8 times the
        spread; those of precision and density are right.
        """
        found = _measured(sample, reference, self.name)
        value, left = found.values[self.which], found.leave_one_out[self.which]
        error = jackknife(value, left.tolist() if len(left) > 1 else [])
        fewer = len(reference.need_features(self.name)) < sample.count
        own = ["fewer-references"] if fewer else []
        return Score(
            metric=self.name,
            value=value,
            debiased=value,
            se=error.se,
            leave_one_out=error.leave_one_out,
            n=sample.count,
            space=reference.space,
            reference=reference.hash,
            higher_is_better=True,
            flags=(*sample.flags, *own, *reference_flags(self, reference)),
        )


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer the four in the Inception space, and with a suffix in the digit and the 768-d space."""
    spaces = {"": "inception_2048", "_inception_768": "inception_768", "_digits": "digits"}
    return [ManifoldMetric(name + suffix, space, name) for suffix, space in spaces.items() for name in WHICH]


_LAST: list[tuple[weakref.ref[GroupedStatistics], int, weakref.ref[Reference], Neighbourhoods]] = []


def _measured(sample: GroupedStatistics, reference: Reference, metric: str) -> Neighbourhoods:
    """The four of the same sample come from one pass."""
    for known, count, against, found in _LAST:
        if known() is sample and count == sample.count and against() is reference:
            return found
    real = thinned(reference.need_features(metric), sample.count)
    found = neighbourhoods(
        torch.as_tensor(sample.features).double(), torch.as_tensor(real).double(), sample.slices
    )
    _LAST[:] = [(weakref.ref(sample), sample.count, weakref.ref(reference), found)]
    return found


def thinned(features: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.float32]:
    """Return n rows, evenly spaced, of a longer array."""
    return features if len(features) <= n else features[np.arange(n) * len(features) // n]


def _radii(x: torch.Tensor, groups: Sequence[slice], k: int) -> torch.Tensor:
    """Squared distance to the k-th neighbour, (1 + G, n): among all, then without each group in turn."""
    radii = torch.empty(1 + len(groups), len(x), dtype=x.dtype)
    for rows in _tiles(len(x)):
        distance = _squared(x[rows], x)
        distance[torch.arange(len(distance)), torch.arange(rows.start, rows.stop)] = torch.inf
        nearest = [distance[:, g].topk(min(k, g.stop - g.start), dim=1, largest=False).values for g in groups]
        owner = torch.cat([torch.full((near.shape[1],), g) for g, near in enumerate(nearest)])
        candidates = torch.cat(nearest, dim=1)
        radii[0, rows] = candidates.kthvalue(k, dim=1).values
        for g in range(len(groups)) if len(groups) > 1 else ():
            radii[1 + g, rows] = candidates[:, owner != g].kthvalue(k, dim=1).values
    return radii


def _squared(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.addmm((x * x).sum(1)[:, None] + (y * y).sum(1), x, y.T, alpha=-2.0).clamp_min_(0.0)


def _means_without(values: Array, groups: Sequence[slice]) -> Array:
    total, n = values.sum(), len(values)
    return np.array([(total - values[g].sum()) / max(1, n - (g.stop - g.start)) for g in groups])


def _tiles(n: int) -> Iterator[slice]:
    return (slice(i, min(i + _TILE, n)) for i in range(0, n, _TILE))
