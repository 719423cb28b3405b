"""Claims at several looks: their level, what they say, and how often they are false."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support.reports import score

from bench.stats.comparison import scaled
from bench.stats.resampling import jackknife
from bench.stats.score import Score
from bench.stats.sequential import ALPHA, Boundary, needed_ratio, power

GROUPS = 20


def means(samples):
    """The mean of each column of samples (n, K) as a score with its jackknife by groups of rows."""
    groups = np.array_split(samples, GROUPS)
    total, n = samples.sum(0), len(samples)
    left = np.array([(total - g.sum(0)) / (n - len(g)) for g in groups])
    found = []
    for column in range(samples.shape[1]):
        made = jackknife(total[column] / n, left[:, column])
        found.append(
            Score("m", made.value, made.debiased, made.se, made.leave_one_out, n, "space", "reference")
        )
    return found


def test_the_level_is_shared_by_every_look_and_every_ordered_pair():
    assert Boundary(5, 3, alpha=0.06).level == pytest.approx(0.06 / (3 * 5 * 4))
    assert Boundary(1, 4).level == pytest.approx(ALPHA / 4)


def test_beaten_is_a_one_sided_t_test_of_the_paired_difference():
    rng = np.random.default_rng(0)
    a, b = means(rng.normal([0.3, 0.0], 1.0, size=(400, 2)))
    difference = np.asarray(a.leave_one_out) - np.asarray(b.leave_one_out)
    se = math.sqrt((GROUPS - 1) / GROUPS * np.sum((difference - difference.mean()) ** 2))
    p = stats.t.sf((a.value - b.value) / se, GROUPS - 1)
    for alpha, claimed in ((2.02 * p, True), (1.98 * p, False)):
        assert Boundary(2, 1, alpha=alpha).beaten(a, b) == claimed
    assert not Boundary(2, 1, alpha=0.99).beaten(b, a)
    higher = [replace(one, higher_is_better=True) for one in (a, b)]
    assert Boundary(2, 1, alpha=2.02 * p).beaten(*higher[::-1])


def test_within_a_margin_of_a_rival_means_better_than_it_made_worse():
    a, b = score(1.0, se=0.001, seed=1), score(1.01, se=0.001, seed=2)
    boundary = Boundary(2, 1)
    assert boundary.tied(a, b, 0.02)
    assert boundary.within(a, b, 0.005)  # the better of the two
    assert not boundary.within(b, a, 0.005)
    assert not boundary.tied(a, b, 0.005)
    assert not boundary.tied(a, score(1.01, se=0.1, seed=2), 0.02)  # not known well enough


def test_a_score_made_worse_is_further_from_what_is_right():
    assert scaled(score(2.0), 1.1).value == pytest.approx(2.2)
    assert scaled(score(2.2, higher_is_better=True), 1.1).value == pytest.approx(2.0)
    assert scaled(score(0.4, target=0.5), 2).value == pytest.approx(0.3)
    assert scaled(score(2.0, se=0.3), 2).se == pytest.approx(
        jackknife(0, scaled(score(2.0, se=0.3), 2).leave_one_out).se
    )


def test_nothing_is_claimed_of_too_few_samples_for_their_dimension():
    a, b = score(9.0, se=0.001, flags=("rank-deficient",)), score(1.0, se=0.001, seed=3)
    assert not Boundary(2, 1).beaten(a, b)
    assert Boundary(2, 1).beaten(replace(a, flags=()), b)


@pytest.mark.parametrize("best", [0.0, 0.05])
def test_false_claims_over_all_looks_stay_below_their_level(best):
    """Four means of correlated samples, the first better by ``best``: 4 looks, claims about any pair."""
    rng, false, runs = np.random.default_rng(4), 0, 400
    boundary = Boundary(4, 4)
    for _ in range(runs):
        samples = 0.5 * rng.normal(size=(800, 4)) + rng.normal(size=(800, 1))
        samples[:, 0] -= best
        seen = [means(samples[:n]) for n in (100, 200, 400, 800)]
        false += any(
            boundary.beaten(look[a], look[b])
            for look in seen
            for a in range(4)
            for b in range(4)
            if b != 0 or best == 0.0
        )
    assert false / runs <= ALPHA


def test_power_is_that_of_simulated_t_tests():
    rng = np.random.default_rng(5)
    z = rng.normal(size=20_000) + 2.5
    t = z / np.sqrt(rng.chisquare(19, size=20_000) / 19)
    assert power(2.5, 1.0, 20) == pytest.approx(np.mean(np.abs(t) > stats.t.ppf(0.975, 19)), abs=0.01)
    assert power(0.0, 1.0, 20) == pytest.approx(0.05, abs=2e-4)
    assert power(-2.5, 1.0, 20) == power(2.5, 1.0, 20)
    assert power(50.0, 1.0, 20) == pytest.approx(1.0)
    assert power(0.1, 0.0, 20) == 1.0


@pytest.mark.parametrize(("chance", "groups"), [(0.8, 20), (0.99, 20), (0.9, 2), (0.06, 5)])
def test_the_difference_that_is_needed_has_the_power_asked_for(chance, groups):
    ratio = needed_ratio(chance, groups)
    assert power(ratio, 1.0, groups) == pytest.approx(chance)
    critical = stats.t.ppf(0.975, groups - 1)
    known = stats.nct.sf(critical, groups - 1, ratio) + stats.nct.cdf(-critical, groups - 1, ratio)
    assert known == pytest.approx(chance, abs=2e-3)
