"""Error bars of whole scores by repetition with known truth; docs/uncertainty.md has the long tables."""

import numpy as np
import pytest

from bench.metrics import FrechetMetric, GroupedStatistics
from bench.metrics.samples import law_reference
from bench.stats.comparison import compare, interval

D, N, REPETITIONS = 8, 400, 400


def score(x, law):
    stats = GroupedStatistics(len(x), D)
    stats.add(x, range(len(x)))
    return FrechetMetric("fd", "simulated").score(stats, law)


@pytest.fixture(scope="module")
def law():
    mix = np.random.default_rng(0).normal(size=(D, D))
    return mix, law_reference(np.zeros(D), mix @ mix.T, (1, 1, D), name="law")


@pytest.fixture(scope="module", params=["normal", "heavy"])
def runs(request, law):
    """Scores of a sampler whose every direction is 10% too wide: the truth is 0.01 tr(S)."""
    mix, reference = law
    rng = np.random.default_rng(1)
    scores = []
    for _ in range(REPETITIONS):
        z = rng.normal(size=(N, D)) if request.param == "normal" else rng.exponential(size=(N, D)) - 1
        scores.append(score(1.1 * z @ mix.T, reference))
    return 0.01 * np.trace(reference.cov), scores


def test_bias_is_removed(runs):
    truth, scores = runs
    value, debiased = (np.array([getattr(s, name) for s in scores]) for name in ("value", "debiased"))
    error = debiased.std() / np.sqrt(REPETITIONS)
    assert abs(debiased.mean() - truth) < 4 * error
    assert value.mean() - truth > 10 * error


def test_standard_error_is_the_spread(runs):
    _, scores = runs
    spread = np.std([s.debiased for s in scores])
    assert 0.9 < np.sqrt(np.mean([s.se**2 for s in scores])) / spread < 1.3  # it errs upwards


def test_intervals_cover_the_truth(runs):
    truth, scores = runs
    covered = np.mean([low < truth < high for low, high in map(interval, scores)])
    assert 0.90 < covered < 0.99


def test_equal_laws_on_shared_noise_are_ties(law):
    """Samples rotated within the law: other samples, the same law; no more than 5% are called different."""
    mix, reference = law
    rng = np.random.default_rng(2)
    rotation = np.linalg.qr(np.eye(D) + 0.2 * rng.normal(size=(D, D)))[0]
    called, repetitions = 0, 150
    for _ in range(repetitions):
        z = rng.normal(size=(N, D))
        called += (
            compare(score(1.1 * z @ mix.T, reference), score(1.1 * z @ rotation.T @ mix.T, reference)).verdict
            != "tie"
        )
    assert called / repetitions < 0.08


def test_shared_noise_finds_small_differences(law):
    """2% wider on the same noise is found every time."""
    mix, reference = law
    rng = np.random.default_rng(3)
    for _ in range(20):
        z = rng.normal(size=(N, D))
        narrow, wide = score(1.10 * z @ mix.T, reference), score(1.12 * z @ mix.T, reference)
        found = compare(wide, narrow)
        assert found.verdict == "worse"
        assert found.se < 0.5 * np.hypot(narrow.se, wide.se)
