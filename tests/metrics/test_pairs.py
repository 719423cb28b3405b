"""Distances of two sets of samples against closed forms and repetition."""

import numpy as np
import pytest

from bench.errors import UsageError
from bench.metrics.pairs import gap


def rows(n=400, d=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_a_shift_is_both_distances():
    x, shift = rows(), np.array([0.3, 0, -0.4, 0, 0])
    found = gap(x, x + shift)
    assert found.paths.value == pytest.approx(0.25)
    assert found.paths.se == pytest.approx(0, abs=1e-12)
    assert found.laws.value == pytest.approx(0.25)
    assert found.laws.debiased == pytest.approx(0.25)


def test_equal_sets_lie_nowhere_apart():
    found = gap(rows(), rows())
    assert found.paths.value == 0
    assert found.laws.value == pytest.approx(0, abs=1e-10)


def test_distributions_are_no_further_apart_than_paths():
    x = rows()
    same_law = gap(x, x[::-1].copy())
    assert same_law.laws.value == pytest.approx(0, abs=1e-10)
    assert same_law.paths.value == pytest.approx(10, rel=0.2)  # E|x - y|^2 = 2 d
    other = gap(x, 1.3 * x + 0.2 * rows(seed=1))
    assert 0 < other.laws.value < other.paths.value


def test_errors_are_the_spread_over_repetitions():
    found = [gap(rows(seed=s), rows(seed=s) * 1.2 + 0.3 * rows(seed=1000 + s)) for s in range(150)]
    for name in ("paths", "laws"):
        values = [getattr(one, name).debiased for one in found]
        errors = [getattr(one, name).se for one in found]
        assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.25)
    # N(0, I) and N(0, 1.53 I): 5 (sqrt(1.53) - 1)^2
    truth = 5 * (np.sqrt(1.44 + 0.09) - 1) ** 2
    assert np.mean([one.laws.debiased for one in found]) == pytest.approx(truth, rel=0.02)


def test_sets_of_other_sizes_are_refused():
    with pytest.raises(UsageError, match="the same number of both"):
        gap(rows(10), rows(11))
