"""Rankings whose truth is known: certain, a coin toss, and chances by the normal law."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import kendalltau
from support.reports import score

from bench.errors import UsageError
from bench.stats.decomposition import decompose
from bench.stats.ranking import agreement, losses, ranks, redrawn, steadiness

GROUPS = 400
"""Many groups, so that the mean of those drawn is normal."""


def wide(value, se, seed):
    """A score with as many groups, independent of those of other seeds."""
    left = np.random.default_rng(seed).normal(size=GROUPS)
    left = (left - left.mean()) / left.std() * se / math.sqrt(GROUPS - 1)
    return replace(score(value, se), leave_one_out=tuple(value + left))


def of(scores, **options):
    return ranks(losses(scores), redrawn(scores, **options))


def test_a_sure_order_is_found_in_every_draw():
    found = of([score(2.0, 0.01, seed=1), score(1.0, 0.01, seed=2), score(3.0, 0.01, seed=3)])
    assert [(one.place, one.best, one.low, one.high) for one in found] == [
        (2, 0, 2, 2),
        (1, 1, 1, 1),
        (3, 0, 3, 3),
    ]


def test_equal_scores_of_independent_samples_are_a_toss_of_a_coin():
    first, second = of([wide(1.0, 0.1, 1), wide(1.0, 0.1, 2)])
    assert first.best == pytest.approx(0.5, abs=0.04)
    assert (first.low, first.high, second.low, second.high) == (1, 2, 1, 2)


def test_the_same_scores_share_every_draw():
    first, second = of([score(1.0, 0.1), score(1.0, 0.1)])
    assert (first.best, second.best) == (0.5, 0.5)


@pytest.mark.parametrize("gap", [0.1, 0.2])
def test_the_chance_is_that_of_the_normal_law(gap):
    scores = [wide(1.0, 0.1, 1), wide(1.0 + gap, 0.1, 2)]
    left = np.array([one.leave_one_out for one in scores])
    se = math.sqrt((GROUPS - 1) / GROUPS * np.sum((left[0] - left[1] + gap) ** 2))
    assert of(scores)[0].best == pytest.approx(ndtr(gap / se), abs=0.03)


def test_scores_that_share_their_noise_are_drawn_together():
    """The same groups move both: a difference far below either error is certain."""
    base = wide(1.0, 0.5, 1)
    better = replace(
        base, value=0.99, debiased=0.99, leave_one_out=tuple(v - 0.01 for v in base.leave_one_out)
    )
    assert of([base, better])[1].best == 1


@pytest.mark.parametrize(("part", "factor"), [(1.0, 1.0), (0.25, 2.0)])
def test_draws_spread_as_the_jackknife_says_and_more_with_fewer_samples(part, factor):
    drawn = redrawn([score(1.0, 0.1)], part, draws=20_000)
    assert drawn.std() == pytest.approx(factor * 0.1, rel=0.02)
    assert drawn.mean() == pytest.approx(1.0, abs=0.01)


def test_the_direction_and_the_right_value_decide_who_is_best():
    high = {"higher_is_better": True}
    assert [one.place for one in of([score(0.2, **high), score(0.9, seed=1, **high)])] == [2, 1]
    right = {"target": 0.5}
    assert [one.place for one in of([score(0.1, **right), score(0.6, seed=1, **right)])] == [2, 1]


def test_tau_is_that_of_scipy_with_ties():
    rng = np.random.default_rng(0)
    one, other = rng.integers(5, size=(2, 1, 9)).astype(float)
    found = agreement((one, one), (other, other))
    assert found.tau == pytest.approx(kendalltau(one[0], other[0]).statistic)
    assert found.low == found.high == pytest.approx(found.tau)


def test_the_agreement_of_sure_and_of_random_orders():
    sure = [score(float(value), 0.01, seed=value) for value in range(5)]
    backwards = [replace(one, value=4 - one.value, debiased=4 - one.debiased) for one in sure]
    mine, theirs = ((losses(given), redrawn(given)) for given in (sure, backwards))
    assert agreement(mine, theirs).tau == -1
    assert (agreement(mine, mine).low, steadiness(*mine).tau) == (1, 1)
    tossed = [wide(1.0 + 0.001 * seed, 0.1, seed) for seed in range(6)]
    found = steadiness(losses(tossed), redrawn(tossed))
    assert found.low < 0 < found.high
    assert found.tau == pytest.approx(0, abs=0.1)


def test_what_cannot_be_ranked_is_said():
    with pytest.raises(UsageError, match="they differ in reference"):
        redrawn([score(1.0), score(1.0, reference="other")])
    with pytest.raises(UsageError, match="0 jackknife groups"):
        redrawn([replace(score(1.0), leave_one_out=())])
    with pytest.raises(UsageError, match="at least two rows"):
        agreement((np.zeros((1, 1)),) * 2, (np.zeros((1, 1)),) * 2)


def test_parts_add_up_to_the_score_and_an_exact_solver_adds_none():
    mine, real = score(5.0, 0.3, debiased=4.4), score(0.9, 0.1, debiased=0.2, seed=1)
    parts = decompose(mine, replace(mine, value=3.0, debiased=2.0), real)
    assert parts.total == pytest.approx(5.0)
    assert (parts.sampling.value, parts.sampling.se) == pytest.approx((0.8, real.se))
    assert (parts.network.value, parts.network.se) == pytest.approx((1.8, math.hypot(mine.se, real.se)))
    assert (parts.solver.value, parts.solver.se) == pytest.approx((2.4, 0.0))
    own = decompose(mine, mine, None)
    assert (own.solver.value, own.solver.se) == (0, 0)
    assert own.network.value == pytest.approx(4.4)


def test_parts_of_too_few_images_are_refused():
    few = score(5.0, flags=("rank-deficient",))
    with pytest.raises(UsageError, match="no bias correction"):
        decompose(few, few, None)
