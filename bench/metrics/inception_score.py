"""The Inception Score, over all samples at once, with its error."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bench.hooks import hookimpl
from bench.metrics.groups import GroupedStatistics, Needs
from bench.metrics.metric import Metric, score_without_reference, scored
from bench.metrics.moments import Moments
from bench.metrics.parts import cut, sum_of_groups
from bench.metrics.reference import Reference
from bench.stats.resampling import jackknife
from bench.stats.score import Score

_SMALLEST = 1e-300


@dataclass(frozen=True)
class InceptionScore:
    """IS = exp(E KL(p(y|x) || p(y))) (Salimans et al. 2016, arXiv:1606.03498), p(y) over all samples.

    Published scores are means over 10 splits, whose bias is that of a tenth of the samples; here one
    split holds all, and ``debiased`` corrects what is left. Features are the class probabilities and their
    sum p log p, so that means by group are all it needs. No reference enters: scores with different
    references can be compared.

    Attributes:
        name: column name.
        space: name of the feature space.
    """

    name: str = "inception_score"
    space: str = "inception_probs"
    needs: Needs = "moments"
    higher_is_better: bool = True
    uses_reference: bool = False

    def score(self, sample: GroupedStatistics, reference: Reference) -> Score:
        """Return the score with its jackknife error; UsageError for no samples."""
        return score_without_reference(self, sample, reference, inception_score)


@dataclass(frozen=True)
class SplitInceptionScore:
    """Mean Inception Score of equal parts of the samples, each with its own p(y): as papers print it.

    A part's score is too low by a bias of its own size, so that values of 10 parts of 5,000 compare with
    published ones and not with `InceptionScore` of 50,000. Parts are consecutive samples, whole jackknife
    groups of them. Papers print the standard deviation over the parts; the error of their mean, which is that
    over the square root of their number, is ``se``. The value is what it is defined as: nothing is corrected.

    Attributes:
        name: column name.
        splits: number of parts.
        space: name of the feature space.
    """

    name: str = "inception_score_10"
    splits: int = 10
    space: str = "inception_probs"
    needs: Needs = "moments"
    higher_is_better: bool = True
    uses_reference: bool = False

    @property
    def fewest(self) -> int:
        """The least number of samples: a jackknife group for each part."""
        return self.splits

    def score(self, sample: GroupedStatistics, reference: Reference) -> Score:
        """Return the mean, and as leave-one-out values the mean without each part.

        Raises:
            UsageError: for fewer groups of samples than parts.
        """
        parts = cut(sample.present, self.splits, self.name)
        each = [inception_score(sum_of_groups(sample, groups)) for groups in parts]
        left = [(sum(each) - one) / (self.splits - 1) for one in each] if self.splits > 1 else []
        found = jackknife(sum(each) / self.splits, left)
        return scored(self, sample, reference, found, corrected=False)


def inception_score(moments: Moments) -> float:
    """exp(mean sum p log p - sum q log q), q the mean of p; the last feature holds sum p log p."""
    marginal = moments.mean[:-1].clip(min=_SMALLEST)
    return math.exp(float(moments.mean[-1]) - float((marginal * np.log(marginal)).sum()))


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer ``inception_score`` and ``inception_score_10``."""
    return [InceptionScore(), SplitInceptionScore()]
