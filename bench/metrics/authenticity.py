"""Authenticity: are samples images of their own, or a training image with a little noise?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bench.errors import UsageError
from bench.hooks import hookimpl
from bench.metrics.copying import nearest_distances, nearest_neighbours
from bench.metrics.groups import GroupedStatistics, Needs
from bench.metrics.metric import Metric, scored
from bench.metrics.reference import Reference
from bench.stats.resampling import jackknife
from bench.stats.score import Score


@dataclass(frozen=True)
class Authenticity:
    """Share of samples y that are further from their nearest training image x than x is from its own nearest.

    Alaa et al. 2022, arXiv:2102.08921, section 4.3: a sample inside that distance counts as x with noise.
    Higher is better, and not towards 1: of fresh real images those are authentic whose nearest training image
    has another neighbour nearer, which is a third in one dimension and tends to a half in many, for evenly
    spread points. Samples far from all images are authentic too, so that it is read beside a distance and
    beside the row of real images. Unlike `CopyingMetric` it needs no held-out images, and it measures with
    the distances that the training images have at that place.

    ``se`` is that of fresh samples against the same training images.

    Attributes:
        name: column name.
        space: name of the feature space.
    """

    name: str
    space: str
    needs: Needs = "features"
    higher_is_better: bool = True

    def score(self, sample: GroupedStatistics, reference: Reference) -> Score:
        """Return the share with its jackknife error; ``reference`` is the training set.

        Raises:
            UsageError: for no samples, fewer than two training images, or features that were not kept.
        """
        train = reference.need_features(self.name)
        if len(train) < 2 or not sample.count:
            raise UsageError(f"{self.name} needs samples and at least 2 training images")
        distances, places = nearest_neighbours(sample.features, train)
        used, of_sample = np.unique(places, return_inverse=True)
        authentic = (distances > nearest_distances(train[used], train, used)[of_sample]).astype(np.float64)
        groups = sample.slices
        left = [float(np.delete(authentic, g).mean()) for g in groups] if len(groups) > 1 else []
        found = jackknife(float(authentic.mean()), left)
        return scored(self, sample, reference, found)


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer authenticity in the pixel, digit, Inception and DINOv2 spaces."""
    spaces = ("pixels", "digits", "inception_2048", "dinov2_l14")
    return [Authenticity(f"authenticity_{space}", space) for space in spaces]
