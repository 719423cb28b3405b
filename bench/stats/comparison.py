"""How far a score can be trusted, and whether two of them differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from bench.errors import UsageError
from bench.stats.resampling import jackknife
from bench.stats.score import Score

Verdict = Literal["better", "worse", "tie"]


LEVEL = 0.95


UNJUDGED = ("rank-deficient", "saturated")
"""Flags of scores that tell nothing of a sampler where every score has one: the bias of too few samples, or
the cut of values outside the range of images, is as large as what is compared."""


@dataclass(frozen=True)
class Comparison:
    """Score A against score B.

    Attributes:
        difference: A - B of the debiased values; of the plain ones where a covariance is rank-deficient,
            whose bias the jackknife does not remove. Of scores with a target: of their distances from it.
        se: standard error of the difference, paired through the groups both left out.
        z: difference / se.
        p: two-sided, Student's t with groups - 1 degrees of freedom; with a target the larger of two.
        low: lower end of the 95% interval of the difference.
        high: its upper end.
        verdict: how A fares: ``better``, ``worse``, or ``tie`` where p is 5% or more.
    """

    difference: float
    se: float
    z: float
    p: float
    low: float
    high: float
    verdict: Verdict


def compare(a: Score, b: Score, *, level: float = LEVEL) -> Comparison:
    """Compare two scores, paired: group k of both is left out together.

    Samples that share noise have scores that move together, and the error of the difference is far smaller
    than that of either; independent samples are compared correctly too, with nothing gained.

    With a target t the difference is |a - t| - |b - t|. As (a - t)^2 - (b - t)^2 = (a - b)(a + b - 2t), who
    is nearer is known where the signs of both factors are: p is the larger of theirs (Berger 1982,
    Technometrics 24(4)). What both scores owe to one reference sample cancels in a - b and adds up in a + b;
    it is counted there as the part of either ``se`` that the groups do not explain.

    Raises:
        UsageError: if the scores differ in metric, feature space, number of samples, reference, quantisation,
            target or number of groups; the sentence names the fields.
    """
    refuse_mixed(a, b)
    left_a, left_b = np.asarray(a.leave_one_out), np.asarray(b.leave_one_out)
    freedom, se = len(left_a) - 1, _spread(left_a - left_b)
    if freedom < 1 or not math.isfinite(se):
        raise UsageError(f"{a.metric} has {len(left_a)} jackknife groups; a comparison needs at least 2")
    sound = math.isfinite(a.debiased - b.debiased) and "rank-deficient" not in {*a.flags, *b.flags}
    at_a, at_b = (a.debiased, b.debiased) if sound else (a.value, b.value)
    difference = at_a - at_b
    z, p = _student(difference, se, freedom)
    if a.target is not None:
        shared = sum(math.sqrt(max(0.0, s.se**2 - _spread(np.asarray(s.leave_one_out)) ** 2)) for s in (a, b))
        across = math.hypot(_spread(left_a + left_b), shared)
        p = max(p, _student(at_a + at_b - 2.0 * a.target, across, freedom)[1])
        se = se if (at_a > a.target) == (at_b > a.target) else across
        difference = abs(at_a - a.target) - abs(at_b - a.target)
        z = _student(difference, se, freedom)[0]
    reach = float(stdtrit(freedom, 0.5 + level / 2)) * se
    verdict: Verdict = "tie"
    if p < 1.0 - level:
        verdict = "better" if (difference > 0) == a.higher_is_better else "worse"
    return Comparison(difference, se, z, p, difference - reach, difference + reach, verdict)


def scaled(score: Score, factor: float) -> Score:
    """Return a score that is worse by a factor >= 1.

    It is larger where lower is better and smaller where higher is; where a target t is right, it is further
    from that: t + factor (score - t).
    """
    if factor == 1:
        return score
    by = 1 / factor if score.higher_is_better else factor
    target = score.target or 0.0
    value, debiased, *left = (
        target + by * (one - target) for one in (score.value, score.debiased, *score.leave_one_out)
    )
    return replace(score, value=value, debiased=debiased, se=by * score.se, leave_one_out=tuple(left))


def _spread(left: npt.NDArray[np.float64]) -> float:
    return jackknife(0.0, left.tolist()).se


def _student(difference: float, se: float, freedom: int) -> tuple[float, float]:
    """Return (z, two-sided p) of a difference; without any spread it is certain, or zero."""
    z = difference / se if se else math.copysign(math.inf, difference) if difference else 0.0
    return z, 2.0 * float(stdtr(freedom, -abs(z)))


def not_judged(scores: Iterable[Score]) -> str:
    """Return the flags for which no verdict can be had, where every score has one; else nothing."""
    found = [[flag for flag in UNJUDGED if flag in score.flags] for score in scores]
    return ", ".join(flag for flag in UNJUDGED if any(flag in flags for flags in found)) if all(found) else ""


def refuse_mixed(a: Score, b: Score) -> None:
    """Raise UsageError, naming the fields, unless the two scores measure the same thing."""
    fields = {
        "metric": (a.metric, b.metric),
        "feature space": (a.space, b.space),
        "N": (a.n, b.n),
        "reference": (a.reference, b.reference),
        "quantisation": (a.quantisation, b.quantisation),
        "target": (a.target, b.target),
        "jackknife groups": (len(a.leave_one_out), len(b.leave_one_out)),
    }
    differing = [f"{name} ({x} and {y})" for name, (x, y) in fields.items() if x != y]
    if differing:
        raise UsageError(f"these scores cannot be compared: they differ in {', '.join(differing)}")


def estimate(score: Score) -> float:
    """Return what scores are ranked by: `corrected`, or its distance from the target."""
    value = corrected(score)
    return value if score.target is None else abs(value - score.target)


def corrected(score: Score) -> float:
    """Return the debiased value; the plain one where there is none or it is worthless (rank-deficient)."""
    useless = math.isnan(score.debiased) or "rank-deficient" in score.flags
    return score.value if useless else score.debiased


def interval(score: Score, *, level: float = LEVEL) -> tuple[float, float]:
    """Return the confidence interval of the debiased value (Student's t, groups - 1 degrees of freedom)."""
    reach = float(stdtrit(len(score.leave_one_out) - 1, 0.5 + level / 2)) * score.se
    return score.debiased - reach, score.debiased + reach


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number.

    Of comparisons that were chosen before the data were seen, the chance of any false claim stays below the
    level. Source: Holm 1979, Scandinavian Journal of Statistics 6(2).
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for place, index in enumerate(order):
        running = max(running, (len(p_values) - place) * p_values[index])
        adjusted[index] = min(running, 1.0)
    return adjusted


def ties_with_best(
    scores: Mapping[str, Score],
    *,
    level: float = LEVEL,
    pair: Callable[[str, str], tuple[Score, Score]] | None = None,
) -> tuple[str, list[str]]:
    """Return the best of a column and those that cannot be told from it, after Holm's correction.

    The best is chosen from the same data, and its luck counts against the others: of K equal and independent
    scores one or more are called worse in 5, 6, 9, 10, 14 and 21% of columns for K = 2, 3, 5, 7, 10 and 20.
    That a score is a tie is therefore said too rarely, not too often.

    Args:
        scores: the scores of one column by name.
        level: the confidence.
        pair: gives the scores that two names are compared by, where these are others than those that the
            best is chosen by: of the samples that both have. None: the same.

    Scores that cannot be compared with the best raise UsageError; give one column at a time.
    """
    if not scores:
        raise UsageError("a column without scores has no best")

    sign = -1.0 if next(iter(scores.values())).higher_is_better else 1.0
    best = min(scores, key=lambda name: sign * estimate(scores[name]))
    others = [name for name in scores if name != best]
    paired = [pair(name, best) if pair else (scores[name], scores[best]) for name in others]
    adjusted = holm([compare(one, top, level=level).p for one, top in paired])
    return best, [name for name, p in zip(others, adjusted, strict=True) if p >= 1.0 - level]


@dataclass(frozen=True)
class Replicates:
    """Scores of the same trial over several seeds.

    Attributes:
        mean: over the seeds.
        sd: sample standard deviation between seeds; NaN for one seed.
        n: number of seeds.
        min_of_n: the smallest. Not an estimate of anything: it falls with n.
    """

    mean: float
    sd: float
    n: int
    min_of_n: float

    @property
    def se(self) -> float:
        """Standard error of the mean, sd / sqrt(n)."""
        return self.sd / math.sqrt(self.n)


def replicates(values: Sequence[float]) -> Replicates:
    """Summarise the values of several seeds; ValueError for none."""
    if not len(values):
        raise ValueError("no replicates to summarise")
    data = np.asarray(values, dtype=np.float64)
    sd = float(data.std(ddof=1)) if data.size > 1 else math.nan
    return Replicates(float(data.mean()), sd, int(data.size), float(data.min()))
