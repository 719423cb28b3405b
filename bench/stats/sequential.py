"""Claims about several scores that are looked at again and again while samples are drawn.

A column of K scores is looked at J times, at numbers of samples that are fixed beforehand. Any of the
K (K - 1) ordered pairs may be claimed about at any look, so that each claim is made at the one-sided level

    a = alpha / (J K (K - 1)).

By Bonferroni's inequality the chance of one false claim or more, in all looks and about all pairs, is at most
alpha, however the scores depend on each other, whenever drawing stops, and although the best is chosen from
the same data. It is an alpha-spending boundary that spends alpha / J at each look (Lan & DeMets 1983,
Biometrika 70(3)), without what the looks' correlation would give back. Errors are those of the paired
jackknife, so that quantiles are Student's t with G - 1 degrees of freedom, as in group-sequential t-tests
(Jennison & Turnbull 2000, Group Sequential Methods with Applications to Clinical Trials, ch. 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaincinv, ndtr, stdtrit

from bench.stats.comparison import LEVEL, Comparison, compare, scaled
from bench.stats.score import Score

ALPHA = round(1.0 - LEVEL, 9)
"""Chance of a false claim in a column, in all looks together."""

POINTS = 4000
"""Values of an estimated error that the power is averaged over."""


@dataclass(frozen=True)
class Boundary:
    """What it takes to claim something of two of K scores at one of J looks.

    Attributes:
        rivals: K, the number of scores of the column at the first look.
        looks: J, the greatest number of looks.
        alpha: chance of a false claim in all of them.
    """

    rivals: int
    looks: int
    alpha: float = ALPHA

    @property
    def level(self) -> float:
        """One-sided level of each claim, alpha / (J K (K - 1))."""
        return self.alpha / (self.looks * max(1, self.rivals * (self.rivals - 1)))

    def beaten(self, score: Score, rival: Score) -> bool:
        """Return whether a score is claimed to be worse than a rival's.

        Scores of too few samples for their dimension (``rank-deficient``) have biases of their own, and
        nothing is claimed of them.
        """
        return _usable(score, rival) and self._claims(compare(score, rival), "worse", score)

    def within(self, score: Score, rival: Score, margin: float) -> bool:
        """Return whether a score is claimed to be worse than a rival's by no more than a fraction of it.

        The claim is that it is better than the rival's made worse by the margin: no matter whether it is the
        better of the two. Of one pair only one of this claim and of `beaten` can be false, so that both share
        a level. Source: Schuirmann 1987, J. Pharmacokinetics and Biopharmaceutics 15(6), one of its two
        one-sided tests.

        Args:
            score: the one that the claim is about.
            rival: the other.
            margin: the fraction, > 0.
        """
        found = compare(score, scaled(rival, 1.0 + margin))
        return _usable(score, rival) and self._claims(found, "better", score)

    def tied(self, score: Score, rival: Score, margin: float) -> bool:
        """Return whether neither of two scores is worse than the other's by more than a fraction of it."""
        return self.within(score, rival, margin) and self.within(rival, score, margin)

    def _claims(self, found: Comparison, verdict: str, score: Score) -> bool:
        better = (found.difference > 0) == score.higher_is_better
        return verdict == ("better" if better else "worse") and found.p / 2.0 < self.level


def _usable(*scores: Score) -> bool:
    return not any("rank-deficient" in score.flags for score in scores)


def power(difference: float, se: float, groups: int, *, alpha: float = ALPHA) -> float:
    """Return the chance that a two-sided comparison at level alpha tells two scores apart.

    P(|T| > c) with c = t_(1 - alpha/2) and T = (r + z) / s noncentral t with G - 1 degrees of freedom:
    r = |difference| / se, z normal, s^2 chi-squared over its degrees of freedom. Given s it is
    Phi(r - c s) + Phi(-r - c s); the mean over s is taken at equally likely values of it.

    Args:
        difference: the true one.
        se: standard error of its estimate.
        groups: G, the number of jackknife groups, at least 2.
        alpha: level of the comparison.
    """
    if se <= 0:
        return 1.0 if difference else 0.0
    freedom = groups - 1
    likely = (np.arange(POINTS) + 0.5) / POINTS
    s = np.sqrt(2.0 * gammaincinv(freedom / 2.0, likely) / freedom)
    reach, apart = stdtrit(freedom, 1.0 - alpha / 2.0) * s, abs(difference) / se
    return float(np.mean(ndtr(apart - reach) + ndtr(-apart - reach)))


def needed_ratio(chance: float, groups: int, *, alpha: float = ALPHA) -> float:
    """Return how many standard errors apart two scores must be to be told apart with a given chance.

    Args:
        chance: the power, between alpha and 1.
        groups: G, the number of jackknife groups, at least 2.
        alpha: level of the comparison.
    """

    def lacking(ratio: float) -> float:
        return power(ratio, 1.0, groups, alpha=alpha) - chance

    enough = 1.0
    while lacking(enough) < 0:
        enough *= 2.0
    return float(brentq(lacking, 0.0, enough))
