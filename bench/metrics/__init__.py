"""Scores: feature spaces, their statistics, and the distances made of them.

How a trial is scored, block by block::

    space = get_space("pixels", (3, 32, 32)).to(device)         # a FeatureSpace
    reference = reference_statistics(train_images, space)       # uint8 (N, C, H, W); cached by content
    whole = GroupedStatistics(n=10_000, dim=space.dim)
    for start, images in blocks:                                # uint8 (B, C, H, W), sample indices start...
        block = GroupedStatistics(n=10_000, dim=space.dim)      # n is always that of the whole trial
        block.add(space(images), range(start, start + len(images)))
        np.savez(file, **block.to_arrays())                     # and from_arrays(np.load(file)) after a kill
        whole.merge(block)                                      # in the order of the blocks: equal last bits
    score = FrechetMetric("fd_pixels", "pixels").score(whole, reference)
    score.value, score.debiased, score.se, score.flags          # score.to_json() goes into the record

A metric with ``needs == "features"`` wants ``GroupedStatistics(..., keep_features=True)`` and
``reference_statistics(..., needs="features")``. Two scores are compared by ``bench.stats.compare``.
"""

from bench.metrics.frechet import FrechetReference, frechet_distance
from bench.metrics.frechet_score import FrechetMetric
from bench.metrics.groups import GroupedStatistics
from bench.metrics.imports import import_npz
from bench.metrics.measuring import measure_references, reference_statistics
from bench.metrics.metric import Metric
from bench.metrics.moments import Moments
from bench.metrics.reference import Reference
from bench.metrics.space import FeatureSpace, fingerprint, get_space
from bench.stats.score import Score

__all__ = [
    "FeatureSpace",
    "FrechetMetric",
    "FrechetReference",
    "GroupedStatistics",
    "Metric",
    "Moments",
    "Reference",
    "Score",
    "fingerprint",
    "frechet_distance",
    "get_space",
    "import_npz",
    "measure_references",
    "reference_statistics",
]
