"""Memorisation: are samples nearer to the training images than fresh real images are?"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from bench.errors import UsageError
from bench.hooks import hookimpl
from bench.metrics.groups import GroupedStatistics, Needs
from bench.metrics.manifold import thinned
from bench.metrics.metric import Metric, reference_flags
from bench.metrics.moments import Array
from bench.metrics.reference import Reference
from bench.metrics.tiles import squared_distances, tile_of, tiles
from bench.stats.comparison import interval
from bench.stats.resampling import jackknife
from bench.stats.score import Score

_BASELINE = 2000  # fresh images that the distances of the samples are ranked among
_BASELINES: weakref.WeakKeyDictionary[Reference, weakref.WeakKeyDictionary[Reference, Array]] = (
    weakref.WeakKeyDictionary()
)
"""Sorted distances of fresh images to a training set, by both; of that to itself where none were held out."""


def nearest_distances(
    x: npt.NDArray[np.float32], train: npt.NDArray[np.float32], own: npt.NDArray[np.int64] | None = None
) -> Array:
    """Distance from each row of x (n, d) to the nearest of train (m, d); see `nearest_neighbours`."""
    return nearest_neighbours(x, train, own)[0]


def nearest_neighbours(
    x: npt.NDArray[np.float32], train: npt.NDArray[np.float32], own: npt.NDArray[np.int64] | None = None
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return (distance, row) of the nearest of train (m, d) to each row of x (n, d), in tiles.

    ``own`` (n,) names the row of ``train`` that a row of x is itself, to be passed over.
    """
    of_x, y = torch.as_tensor(x), torch.as_tensor(train)
    distances, places = np.empty(len(x)), np.empty(len(x), dtype=np.int64)
    for rows in tiles(slice(0, len(x))):
        part = tile_of(of_x, rows)
        least = part.new_full((len(part),), torch.inf)
        place = torch.zeros(len(part), dtype=torch.int64, device=part.device)
        mine = None if own is None else torch.from_numpy(own[rows]).to(part.device)
        for cols in tiles(slice(0, len(train))):
            squared = squared_distances(part, tile_of(y, cols))
            if mine is not None:
                inside = ((mine >= cols.start) & (mine < cols.stop)).nonzero().squeeze(1)
                squared[inside, mine[inside] - cols.start] = torch.inf
            found = squared.min(1)
            nearer = found.values < least
            least = torch.where(nearer, found.values, least)
            place = torch.where(nearer, found.indices + cols.start, place)
        # The expanded square loses a copy's zero to rounding: recomputed from the difference.
        nearest = y[place.cpu()].to(part.device).double()
        distances[rows], places[rows] = (part - nearest).norm(dim=1).cpu().numpy(), place.cpu().numpy()
    return distances, places


@dataclass(frozen=True)
class CopyingMetric:
    """P(a sample is nearer to its nearest training image than a fresh real image is to its own).

    0.5 is what fresh real images get; towards 1 the samples copy training images; below 0.5 they lie further
    off than real ones. Neither is better: scores are ranked by their distance from 0.5. It is the
    Mann-Whitney statistic of Meehan et al. 2020, arXiv:2004.05675, over the whole space.

    Fresh images are those of ``held_out`` where given. Without, each of up to 2000 training images stands
    for a fresh one against all the others: exchangeable images make that the same law.

    The score's ``se`` counts the fresh images as a sample too; comparisons, in which their share cancels, are
    made from the values without each group. It is right where images were held out; without, distances depend
    on one another, it is 0.83 to 0.93 of the spread, and 3 to 5% of fresh samples are flagged, not 2.5%.

    Attributes:
        name: column name.
        space: name of the feature space.
        held_out: features of images that were not trained on, in the same space.
        target: 0.5.
    """

    name: str
    space: str
    held_out: Reference | None = None
    needs: Needs = "features"
    higher_is_better: bool = False
    target: float = 0.5

    def score(self, sample: GroupedStatistics, reference: Reference) -> Score:
        """Return the probability; ``reference`` is the training set.

        With s_i the share of the m fresh distances above the i-th of the n samples' and r_j the share of the
        samples' below the j-th fresh one, the value is mean s = mean r, and se^2 = var(s) / n + var(r) / m
        (DeLong et al. 1988, Biometrics 44(3)), the first term by jackknife.

        Flag: ``copies-training-images`` where the 95% interval lies above 0.5.

        Raises:
            UsageError: if features were not kept, or the held-out images are in another space.
        """
        train = reference.need_features(self.name)
        fresh = self._baseline(reference, train)
        mine = nearest_distances(sample.features, train)
        nearer = 1.0 - _share_below(fresh, mine)
        of_fresh = float(_share_below(np.sort(mine), fresh).var(ddof=1)) / fresh.size
        groups = sample.slices
        left = [float(np.delete(nearer, g).mean()) for g in groups] if len(groups) > 1 else []
        found = jackknife(float(nearer.mean()), left)
        score = Score(
            metric=self.name,
            value=found.value,
            debiased=found.debiased,
            se=math.sqrt(found.se**2 + of_fresh),
            leave_one_out=found.leave_one_out,
            n=sample.count,
            space=reference.space,
            reference=reference.hash,
            target=self.target,
        )
        copies = len(left) > 1 and interval(score)[0] > self.target
        own = ["copies-training-images"] if copies else []
        return replace(score, flags=(*sample.flags, *own, *reference_flags(self, reference)))

    def _baseline(self, reference: Reference, train: npt.NDArray[np.float32]) -> Array:
        known = _BASELINES.setdefault(reference, weakref.WeakKeyDictionary())
        source = self.held_out or reference
        if source not in known:
            known[source] = np.sort(self._fresh_distances(reference, train))
        return known[source]

    def _fresh_distances(self, reference: Reference, train: npt.NDArray[np.float32]) -> Array:
        if self.held_out is not None:
            if self.held_out.space != reference.space:
                raise UsageError(f"{self.name}: the held-out images are in another feature space")
            return nearest_distances(thinned(self.held_out.need_features(self.name), _BASELINE), train)
        if len(train) < 2:
            raise UsageError(f"{self.name} needs at least 2 training images")
        n = min(len(train), _BASELINE)
        own = np.arange(n, dtype=np.int64) * len(train) // n
        return nearest_distances(train[own], train, own)


def _share_below(ordered: Array, values: Array) -> Array:
    """Share of ``ordered``, ascending, below each value; ties count half."""
    below, upto = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray((below + upto) / (2.0 * ordered.size))


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer copying in the pixel, digit and Inception spaces."""
    return [
        CopyingMetric("copying_pixels", "pixels"),
        CopyingMetric("copying_digits", "digits"),
        CopyingMetric("copying_inception_2048", "inception_2048"),
    ]
