"""Error bars and comparisons against closed forms, scipy and simulation."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from bench.errors import UsageError
from bench.stats.comparison import compare, estimate, holm, interval, replicates, ties_with_best
from bench.stats.resampling import influence_se, jackknife
from bench.stats.score import Score


def score(value, left, **fields):
    found = jackknife(value, left)
    base = Score("fd", value, found.debiased, found.se, found.leave_one_out, 1000, "space-1", "ref")
    return replace(base, **fields)


def mean_score(x, groups=20):
    """The mean as a score: its jackknife is known in closed form."""
    parts = np.array_split(x, groups)
    left = [float(np.concatenate(parts[:g] + parts[g + 1 :]).mean()) for g in range(groups)]
    return score(float(x.mean()), left)


def test_jackknife_of_a_mean_is_the_error_of_group_means():
    x = np.random.default_rng(0).normal(size=1000)
    found = mean_score(x)
    means = x.reshape(20, 50).mean(1)
    assert found.debiased == pytest.approx(x.mean(), rel=1e-12)
    assert found.se == pytest.approx(means.std(ddof=1) / math.sqrt(20), rel=1e-12)


def test_jackknife_removes_bias_of_order_one_over_n():
    """The biased variance: f = sum (x - mean)^2 / n becomes exactly the unbiased one, group size 1."""
    x = np.random.default_rng(1).normal(size=30)
    found = jackknife(float(x.var()), [float(np.delete(x, i).var()) for i in range(30)])
    assert found.debiased == pytest.approx(x.var(ddof=1), rel=1e-12)


def test_fewer_than_two_groups_have_no_error():
    found = jackknife(1.0, [1.0])
    assert math.isnan(found.se) and math.isnan(found.debiased)


def test_comparison_is_the_paired_t_test():
    """For means with groups of one sample the paired jackknife is Student's paired t-test."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=20)
    y = x + 0.3 + 0.4 * rng.normal(size=20)
    found = compare(mean_score(x), mean_score(y))
    t = scipy.stats.ttest_rel(x, y)
    assert found.difference == pytest.approx(x.mean() - y.mean(), rel=1e-12)
    assert found.z == pytest.approx(t.statistic, rel=1e-10)
    assert found.p == pytest.approx(t.pvalue, rel=1e-10)
    ends = t.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), rel=1e-10)


def test_verdict_follows_direction_and_interval():
    low = score(1.0, [1.0 + 0.001 * k for k in (-1, 1) * 10])
    high = score(2.0, [2.0 + 0.001 * k for k in (1, -1) * 10])
    assert compare(low, high).verdict == "better"
    assert compare(high, low).verdict == "worse"
    up = {"higher_is_better": True}
    assert compare(replace(low, **up), replace(high, **up)).verdict == "worse"
    assert compare(low, replace(low)).verdict == "tie"
    assert compare(low, replace(low)).p == 1.0


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("space", "space-2", r"feature space \(space-1 and space-2\)"),
        ("n", 500, r"N \(1000 and 500\)"),
        ("reference", "other", r"reference \(ref and other\)"),
        ("quantisation", "none", r"quantisation \(uint8 and none\)"),
        ("metric", "fid", r"metric \(fd and fid\)"),
        ("target", 0.5, r"target \(None and 0.5\)"),
    ],
)
def test_refuses_to_compare_unlike_scores(field, value, named):
    a = score(1.0, [1.0, 1.1, 0.9])
    with pytest.raises(UsageError, match=named) as refusal:
        compare(a, replace(a, **{field: value}))
    assert str(refusal.value).count(" and ") == 1


def test_refusal_names_every_field():
    a = score(1.0, [1.0, 1.1, 0.9])
    with pytest.raises(UsageError, match=r"feature space .* N .* jackknife groups"):
        compare(a, replace(a, space="x", n=2, leave_one_out=(1.0,)))


def test_holm_against_its_definition():
    """Holm's example: adjusted values are the running maximum of (m - i) p_(i), at most 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_ties_with_the_best():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=1000)
    column = {
        "a": mean_score(noise),
        "b": mean_score(noise + 0.01 * rng.normal(size=1000) + 1e-4),
        "c": mean_score(noise + 0.01 * rng.normal(size=1000) + 0.01),
        "d": mean_score(noise + 1),
    }
    best, ties = ties_with_best(column)
    assert best in "ab"
    assert set(ties) | {best} == {"a", "b"}


def test_interval_covers_the_mean():
    """2000 repetitions of known truth: 95% intervals hold it 95% of the time (binomial error 0.5%)."""
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(2000):
        low, high = interval(mean_score(rng.normal(size=100)))
        hits += low < 0.0 < high
    assert 0.93 < hits / 2000 < 0.97


def test_replicates_keep_mean_and_minimum_apart():
    found = replicates([3.0, 1.0, 2.0])
    assert (found.mean, found.sd, found.n, found.min_of_n) == (2.0, 1.0, 3, 1.0)
    assert found.se == pytest.approx(1 / math.sqrt(3))
    assert math.isnan(replicates([1.0]).sd)
    with pytest.raises(ValueError, match="no replicates"):
        replicates([])


def test_influence_se_of_a_mean():
    x = np.random.default_rng(5).normal(size=50)
    assert influence_se(x - x.mean()) == pytest.approx(scipy.stats.sem(x), rel=1e-12)


def test_rank_deficient_scores_are_compared_by_their_plain_values():
    """Their bias is not of order 1/n, so that its correction is worthless."""
    a = score(7.0, [7.5 + 0.01 * k for k in (-1, 1) * 10], flags=("rank-deficient",))
    b = score(6.0, [6.1 + 0.01 * k for k in (1, -1) * 10], flags=("rank-deficient",))
    assert a.debiased < b.debiased
    assert estimate(a) == 7.0
    assert compare(a, b).difference == 1.0
    assert compare(a, b).verdict == "worse"
    assert ties_with_best({"a": a, "b": b}) == ("b", [])


def test_scores_with_a_target_are_ranked_by_their_distance_from_it():
    """Noise at 0.02, fresh images at 0.5, copies at 0.95: less is not better, nor more."""
    rng = np.random.default_rng(6)
    places = {"noise": 0.02, "fresh": 0.502, "other fresh": 0.497, "copies": 0.95}
    column = {
        name: replace(mean_score(at + 0.1 * rng.normal(size=1000)), target=0.5) for name, at in places.items()
    }
    best, ties = ties_with_best(column)
    assert {best, *ties} == {"fresh", "other fresh"}
    assert estimate(column["noise"]) == pytest.approx(0.48, abs=0.01)
    found = compare(column["noise"], column["copies"])
    assert found.verdict == "worse"
    assert found.difference == pytest.approx(0.03, abs=0.01)
    assert compare(column["copies"], column["noise"]).verdict == "better"
    below = compare(column["noise"], replace(mean_score(0.3 + 0.1 * rng.normal(size=1000)), target=0.5))
    assert (below.verdict, below.difference > 0) == ("worse", True)


def test_a_reference_drawn_badly_does_not_turn_the_order_round():
    """0.50 and 0.53 against one baseline that moves both: the wrong one is the nearer in many a draw."""
    rng = np.random.default_rng(7)
    verdicts, signs = [], []
    for _ in range(400):
        moved = 0.02 * rng.normal()
        a, b = (mean_score(at + moved + 0.1 * rng.normal(size=1000)) for at in (0.50, 0.53))
        a, b = (replace(s, se=math.hypot(s.se, 0.02), target=0.5) for s in (a, b))
        verdicts.append(compare(b, a).verdict)
        signs.append(estimate(b) < estimate(a))
    assert np.mean(signs) > 0.1
    assert verdicts.count("better") / 400 < 0.025
    clear = compare(replace(b, **shifted(b, 0.2)), a)
    assert clear.verdict == "worse"


def shifted(found, by):
    left = tuple(value + by for value in found.leave_one_out)
    return {"value": found.value + by, "debiased": found.debiased + by, "leave_one_out": left}


def test_opposite_sides_of_a_target_count_the_reference_twice():
    """|a - t| - |b - t| = a + b - 2 t there, in which what both owe to the reference adds up."""
    rng = np.random.default_rng(8)
    a, b = (mean_score(at + 0.1 * rng.normal(size=1000)) for at in (0.6, 0.45))
    alone = compare(replace(a, target=0.5), replace(b, target=0.5)).se
    left = np.asarray(a.leave_one_out) + np.asarray(b.leave_one_out)
    assert alone == pytest.approx(jackknife(0.0, left.tolist()).se)
    wider = [replace(s, se=math.hypot(s.se, 0.03), target=0.5) for s in (a, b)]
    assert compare(*wider).se == pytest.approx(math.hypot(alone, 0.06))
