"""Precision, recall, density and coverage: neighbourhoods of real and of generated images."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from bench.errors import UsageError
from bench.hooks import hookimpl
from bench.metrics.groups import GroupedStatistics, Needs
from bench.metrics.metric import Metric, scored
from bench.metrics.moments import Array
from bench.metrics.reference import Reference
from bench.metrics.tiles import squared_distances, tile_device, tile_of, tiles
from bench.stats.resampling import jackknife
from bench.stats.score import Score

Which = Literal["precision", "recall", "density", "coverage"]
WHICH: tuple[Which, ...] = ("precision", "recall", "density", "coverage")

NEIGHBOURS: dict[Which, int] = {"precision": 3, "recall": 3, "density": 5, "coverage": 5}
"""k of each: Kynkaanniemi et al. 2019 use 3, Naeem et al. 2020 use 5."""


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

    zeros = partial(torch.zeros, device=tile_device())
    within = zeros(len(fake), dtype=torch.bool)
    hits = zeros(len(fake), dtype=torch.float64)
    covering = zeros(len(real), len(groups), dtype=torch.int64)
    recalled = zeros(len(real), 1 + len(groups), dtype=torch.bool)
    for rows in tiles(slice(0, len(real))):
        x = tile_of(real, rows)
        for g, cols in _tiles_of(groups):
            distance = squared_distances(x, tile_of(fake, cols))
            within[cols] |= (distance <= radius[NEIGHBOURS["precision"]][rows, None]).any(0)
            inside = distance <= radius[NEIGHBOURS["density"]][rows, None]
            hits[cols] += inside.sum(0)
            covering[rows, g] += inside.sum(1)
            for h, around in enumerate(around_fake[:, cols]):
                if h != 1 + g:  # a fake that is left out recalls nothing
                    recalled[rows, h] |= (distance <= around).any(1)

    within, hits, covering, recalled = (one.cpu() for one in (within, hits, covering, recalled))
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
        return scored(self, sample, reference, error, corrected=False, flags=own)


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
    found = neighbourhoods(torch.as_tensor(sample.features), torch.as_tensor(real), sample.slices)
    _LAST[:] = [(weakref.ref(sample), sample.count, weakref.ref(reference), found)]
    return found


def thinned(features: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.float32]:
    """Return n rows, evenly spaced, of a longer array."""
    return features if len(features) <= n else features[np.arange(n) * len(features) // n]


def _radii(x: torch.Tensor, groups: Sequence[slice], k: int) -> torch.Tensor:
    """Squared distance to the k-th neighbour, (1 + G, n): among all, then without each group in turn."""
    radii = torch.empty(1 + len(groups), len(x), dtype=torch.float64, device=tile_device())
    for rows in tiles(slice(0, len(x))):
        nearest, owner = _nearest_of_groups(x, rows, groups, k)
        radii[0, rows] = nearest.kthvalue(k, dim=1).values
        for g in range(len(groups)) if len(groups) > 1 else ():
            radii[1 + g, rows] = nearest[:, owner != g].kthvalue(k, dim=1).values
    return radii


def _nearest_of_groups(
    x: torch.Tensor, rows: slice, groups: Sequence[slice], k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ((B, C) squared distances of rows to the k nearest others of each group, (C,) its number)."""
    own = tile_of(x, rows)
    found = [own.new_empty(len(own), 0)] * len(groups)
    for g, cols in _tiles_of(groups):
        distance = squared_distances(own, tile_of(x, cols))
        first, last = max(rows.start, cols.start), min(rows.stop, cols.stop)
        both = torch.arange(first, max(first, last))
        distance[both - rows.start, both - cols.start] = torch.inf
        candidates = torch.cat([found[g], distance], dim=1)
        found[g] = candidates.topk(min(k, candidates.shape[1]), dim=1, largest=False).values
    owner = torch.cat([torch.full((near.shape[1],), g) for g, near in enumerate(found)])
    return torch.cat(found, dim=1), owner


def _tiles_of(groups: Sequence[slice]) -> list[tuple[int, slice]]:
    """Return (number of the group, columns) of every tile, none of which reaches across two groups."""
    return [(g, cols) for g, group in enumerate(groups) for cols in tiles(group)]


def _means_without(values: Array, groups: Sequence[slice]) -> Array:
    total, n = values.sum(), len(values)
    return np.array([(total - values[g].sum()) / max(1, n - (g.stop - g.start)) for g in groups])
