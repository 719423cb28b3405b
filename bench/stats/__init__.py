"""Scores, their errors, and whether two of them differ."""

from bench.stats.comparison import (
    Comparison,
    Replicates,
    compare,
    estimate,
    holm,
    interval,
    refuse_mixed,
    replicates,
    ties_with_best,
)
from bench.stats.resampling import Jackknife, influence_se, jackknife
from bench.stats.score import Score

__all__ = [
    "Comparison",
    "Jackknife",
    "Replicates",
    "Score",
    "compare",
    "estimate",
    "holm",
    "influence_se",
    "interval",
    "jackknife",
    "refuse_mixed",
    "replicates",
    "ties_with_best",
]
