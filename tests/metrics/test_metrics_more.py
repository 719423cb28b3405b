"""Split Inception Score, Vendi score, Frechet limit, authenticity and tiles: independent formulas."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from support.references import moments_reference
from torch.utils._python_dispatch import TorchDispatchMode

from bench.errors import UsageError
from bench.metrics import FrechetMetric, GroupedStatistics, Moments
from bench.metrics.authenticity import Authenticity
from bench.metrics.copying import nearest_neighbours
from bench.metrics.frechet_limit import FrechetLimit, limit_of
from bench.metrics.inception_score import SplitInceptionScore
from bench.metrics.kernel import KernelMetric
from bench.metrics.manifold import neighbourhoods
from bench.metrics.reference import Reference
from bench.metrics.tiles import computing_on
from bench.metrics.vendi import VendiScore
from bench.plugins.loading import registry
from bench.stats.comparison import compare, estimate


def normal(seed, n, d, scale=1.0):
    return (np.random.default_rng(seed).normal(size=(n, d)) * scale).astype(np.float32)


def statistics_of(features, groups=20):
    stats = GroupedStatistics(len(features), features.shape[1], groups, keep_features=True)
    stats.add(features.astype(np.float32), np.arange(len(features)))
    return stats


def reference_of(features):
    moments = Moments.of(features)
    return Reference("r", len(features), moments.mean, moments.cov, "hash", "s-0", features)


def law(dim):
    """N(0, 1), known exactly."""
    return Reference("law", 0, np.zeros(dim), np.eye(dim), "law", "s-0")


class TestSplitInceptionScore:
    @staticmethod
    def score(logits, **fields):
        logs = torch.log_softmax(torch.from_numpy(logits), 1)
        features = torch.cat([logs.exp(), (logs.exp() * logs).sum(1, keepdim=True)], 1).numpy()
        stats = GroupedStatistics(len(features), features.shape[1])
        stats.add(features, np.arange(len(features)))
        return SplitInceptionScore(**fields).score(
            stats, moments_reference(Moments.of(features), "s", name="r")
        )

    @pytest.mark.parametrize("splits", [2, 4, 10])
    def test_agrees_with_torch_fidelity(self, splits):
        metric_isc = pytest.importorskip("torch_fidelity.metric_isc")
        logits = np.random.default_rng(0).normal(size=(400, 30)) * 2
        theirs = metric_isc.isc_features_to_metric(torch.from_numpy(logits), splits=splits, shuffle=False)
        found = self.score(logits, splits=splits)
        assert found.value == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
        spread = theirs["inception_score_std"] * math.sqrt(splits / (splits - 1))  # theirs divides by k
        assert found.se == pytest.approx(spread / math.sqrt(splits), rel=1e-7)
        assert found.debiased == found.value

    def test_its_error_is_that_of_repetition(self):
        found = [self.score(np.random.default_rng(s).normal(size=(200, 12)) * 2) for s in range(200)]
        spread = np.std([one.value for one in found], ddof=1)
        assert np.mean([one.se for one in found]) / spread == pytest.approx(1.0, abs=0.12)

    def test_fewer_samples_than_parts_are_refused(self):
        assert SplitInceptionScore().fewest == 10
        with pytest.raises(UsageError, match="takes 10 parts of the samples, and there are 8 groups"):
            self.score(np.zeros((8, 4)))


class TestVendi:
    @staticmethod
    def score(features, groups=20):
        return VendiScore("v", "s").score(statistics_of(features, groups), law(features.shape[1]))

    @staticmethod
    def of_the_kernel_matrix(features):
        """Definition 3.1 on the n x n matrix."""
        x = features.astype(np.float64)
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        values = scipy.linalg.eigvalsh(unit @ unit.T / len(x))
        return math.exp(-sum(v * math.log(v) for v in values if v > 1e-14))

    @pytest.mark.parametrize(("n", "d"), [(60, 5), (25, 40)])
    def test_is_the_entropy_of_the_kernel_matrix(self, n, d):
        x = normal(0, n, d) + 0.5
        found = self.score(x, 5)
        assert found.value == pytest.approx(self.of_the_kernel_matrix(x), rel=1e-8)
        rest = [np.delete(x, np.s_[n // 5 * g : n // 5 * (g + 1)], axis=0) for g in range(5)]
        assert found.leave_one_out == pytest.approx(
            [self.of_the_kernel_matrix(one) for one in rest], rel=1e-8
        )
        assert found.higher_is_better and found.reference == "none"

    def test_counts_images_that_differ(self):
        assert self.score(np.repeat(np.eye(7), 20, axis=0)).value == pytest.approx(7, rel=1e-9)
        assert self.score(np.ones((40, 3))).value == pytest.approx(1, rel=1e-9)
        assert self.score(np.eye(30)).value == pytest.approx(30, rel=1e-9)

    def test_a_feature_vector_of_zeros_is_like_itself_alone(self):
        x = np.concatenate([np.zeros((10, 4)), np.repeat(np.eye(4)[:1], 10, axis=0)])
        truth = math.exp(0.5 * math.log(20) + 0.5 * math.log(2))  # ten of 1/20, one of 1/2
        assert self.score(x).value == pytest.approx(truth, rel=1e-9)

    def test_its_error_is_that_of_repetition_and_its_correction_takes_bias_away(self):
        scale = np.array([3, 2, 1, 1, 0.5, 0.5])
        found = [self.score(normal(s, 120, 6) * scale) for s in range(150)]
        spread = np.std([one.value for one in found], ddof=1)
        assert np.mean([one.se for one in found]) / spread == pytest.approx(1.0, abs=0.15)
        truth = self.score(normal(999, 200_000, 6) * scale).value
        plain, corrected = (
            abs(np.mean([getattr(f, a) for f in found]) - truth) for a in ("value", "debiased")
        )
        assert corrected < 0.3 * plain


class TestFrechetLimit:
    @staticmethod
    def distance(x, mean, cov):
        """Straight from the definition, by the square root of a matrix."""
        x = x.astype(np.float64)
        ours = np.cov(x.T)
        root = scipy.linalg.sqrtm(ours @ cov).real
        return float(np.sum((x.mean(0) - mean) ** 2) + np.trace(ours + cov - 2 * root))

    def test_is_the_intercept_of_the_line_through_subsets(self):
        x, d = normal(0, 200, 4, 1.3), 4
        found = FrechetLimit("f", "s").score(statistics_of(x), law(d))

        def line(kept):
            """Rows of x by part, the group of ten rows that is left out taken out of its part."""
            points = []
            for parts in (1, 2, 4, 5):
                cut = [
                    kept[(kept >= 200 // parts * k) & (kept < 200 // parts * (k + 1))] for k in range(parts)
                ]
                mean = np.mean([self.distance(x[rows], np.zeros(d), np.eye(d)) for rows in cut])
                points.append((np.mean([1 / len(rows) for rows in cut]), mean))
            return np.polyfit(*np.array(points).T, 1)[1]

        assert found.value == pytest.approx(line(np.arange(200)), rel=1e-7)
        left = [line(np.delete(np.arange(200), np.s_[10 * g : 10 * g + 10])) for g in range(20)]
        assert found.leave_one_out == pytest.approx(left, rel=1e-4)
        assert found.debiased == found.value == estimate(found)

    def test_is_free_of_bias_and_its_error_is_that_of_repetition_or_cautious(self):
        """N(0, 1.2^2) against N(0, 1) in 8 dimensions: 8 (0.2)^2 exactly."""
        limits, plain = [], []
        for seed in range(120):
            stats = statistics_of(normal(seed, 400, 8, 1.2))
            limits.append(FrechetLimit("f", "s").score(stats, law(8)))
            plain.append(FrechetMetric("f", "s").score(stats, law(8)).value)
        truth, values = 8 * 0.2**2, np.array([one.value for one in limits])
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert np.mean(plain) - truth > 10 * error
        assert abs(values.mean() - truth) < 3 * error + 0.05 * (np.mean(plain) - truth)
        assert np.mean([one.se for one in limits]) / values.std(ddof=1) == pytest.approx(1.15, abs=0.2)

    def test_too_few_samples_are_flagged_or_refused(self):
        assert (
            "rank-deficient" in FrechetLimit("f", "s").score(statistics_of(normal(0, 60, 10)), law(10)).flags
        )
        assert FrechetLimit("f", "s").score(statistics_of(normal(0, 400, 3)), law(3)).flags == ()
        with pytest.raises(UsageError, match="f needs at least 20 samples, got 19"):
            FrechetLimit("f", "s").score(statistics_of(normal(0, 19, 3)), law(3))
        with pytest.raises(UsageError, match="the samples have 3 features and reference 'law' has 4"):
            FrechetLimit("f", "s").score(statistics_of(normal(0, 40, 3)), law(4))

    def test_every_frechet_distance_has_one(self):
        known = registry().metrics.entries
        for name in ("fid_inf", "sfid_inf", "fd_inf_digits", "fd_inf_pixels", "fd_inf_inception_768"):
            assert isinstance(known[name], FrechetLimit)
        limit = limit_of(FrechetMetric("fd_law", "samples", quantisation="none"))
        assert (limit.name, limit.space, limit.quantisation) == ("fd_inf_law", "samples", "none")


class TestAuthenticity:
    @staticmethod
    def brute(x, train):
        """Appendix of arXiv:2102.08921: the nearest image's own nearest is nearer than the sample."""
        real = np.linalg.norm(train[:, None] - train[None], axis=2)
        np.fill_diagonal(real, np.inf)
        distance = np.linalg.norm(x[:, None] - train[None], axis=2)
        return (distance.min(1) > real.min(1)[distance.argmin(1)]).mean()

    def test_is_the_definition(self):
        x, train = normal(0, 80, 3), normal(1, 130, 3)
        found = Authenticity("a", "s").score(statistics_of(x, 8), reference_of(train))
        assert found.value == pytest.approx(self.brute(x, train), abs=1e-12)
        assert 0 < found.value < 1
        left = [self.brute(np.delete(x, np.s_[10 * g : 10 * g + 10], axis=0), train) for g in range(8)]
        assert found.leave_one_out == pytest.approx(left, abs=1e-12)

    def test_copies_have_none_and_what_is_far_off_has_all(self):
        train = normal(2, 200, 5)
        score = Authenticity("a", "s").score
        assert score(statistics_of(train[:100] + np.float32(1e-3)), reference_of(train)).value == 0.0
        assert score(statistics_of(train[:100] + np.float32(50)), reference_of(train)).value == 1.0

    def test_fresh_points_on_a_line_have_a_third(self):
        """A point and its nearest are each other's nearest with probability 2/3 on a line."""
        line = np.random.default_rng(3).random((20_000, 1)).astype(np.float32)
        fresh = np.random.default_rng(4).random((4000, 1)).astype(np.float32)
        found = Authenticity("a", "s").score(statistics_of(fresh), reference_of(line))
        assert found.se == pytest.approx(math.sqrt(2 / 9 / 4000), rel=0.5)
        assert abs(found.value - 1 / 3) < 4 * found.se + 0.005

    def test_more_of_it_is_better(self):
        train = normal(5, 400, 4)
        copied = train[:200] + normal(6, 200, 4, 0.05)
        a, b = (
            Authenticity("a", "s").score(statistics_of(x), reference_of(train))
            for x in (copied, normal(7, 200, 4))
        )
        assert compare(a, b).verdict == "worse"

    def test_one_training_image_is_refused(self):
        alone = Reference("r", 1, np.zeros(3), np.eye(3), "hash", "s-0", normal(1, 1, 3))
        with pytest.raises(UsageError, match="at least 2 training images"):
            Authenticity("a", "s").score(statistics_of(normal(0, 40, 3)), alone)


class Largest(TorchDispatchMode):
    """Remembers the size in bytes of the largest tensor that an operation made."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, torch.Tensor) and not one._is_view():
                self.bytes = max(self.bytes, one.untyped_storage().nbytes())
        return made


D, GROUPS = 6, 4


def by_kernel(x, y, kernel="polynomial"):
    score = KernelMetric("k", "s", kernel).score(statistics_of(x, GROUPS), reference_of(y))
    return [score.value, score.se, *score.leave_one_out]


def by_cmmd(x, y):
    return by_kernel(x, y, "cmmd")


def by_neighbourhoods(x, y):
    found = neighbourhoods(torch.from_numpy(x), torch.from_numpy(y), statistics_of(x, GROUPS).slices)
    return [*found.values.values(), *np.concatenate(list(found.leave_one_out.values()))]


def by_nearest(x, y):
    return nearest_neighbours(x, y)[0].tolist()


PAIRED = [by_kernel, by_cmmd, by_neighbourhoods, by_nearest]


@pytest.mark.parametrize("measure", PAIRED)
def test_tiles_do_not_change_a_score(measure, monkeypatch):
    x, y = normal(0, 150, D, 0.9), normal(1, 170, D)
    whole = measure(x, y)
    for size in (16, 37, 64):
        monkeypatch.setattr("bench.metrics.tiles.TILE", size)
        assert measure(x, y) == pytest.approx(whole, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("measure", PAIRED)
def test_memory_is_that_of_a_tile_and_not_of_all_pairs(measure, monkeypatch):
    """The largest tensor is a tile of distances, or a few numbers for each vector."""
    size, n = 64, 2000
    monkeypatch.setattr("bench.metrics.tiles.TILE", size)
    x, y = normal(0, n, D, 0.9), normal(1, n, D)
    with Largest() as largest:
        measure(x, y)
    pairs, vectors = 8 * size * (size + 5), 8 * n * max(D, 1 + GROUPS)
    assert 8 * size * size <= largest.bytes <= max(pairs, vectors)
    assert max(pairs, vectors) < 8 * n * size < 8 * n * n  # neither a row of tiles nor all pairs


def test_tiles_lie_on_the_cpu_where_a_device_has_no_float64():
    x, y = normal(0, 60, D), normal(1, 60, D)
    with computing_on(torch.device("mps")):
        assert by_kernel(x, y) == by_kernel(x, y)
