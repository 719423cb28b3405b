"""KID, neighbourhoods, Inception Score, copying, slices, influence: brute force and closed forms."""

import math

import numpy as np
import pytest
import torch
from support.references import moments_reference

from bench.errors import UsageError
from bench.metrics import FrechetMetric, GroupedStatistics, Moments
from bench.metrics.copying import CopyingMetric, nearest_distances
from bench.metrics.inception_score import InceptionScore
from bench.metrics.influence import influence, optimal_map
from bench.metrics.kernel import KernelMetric
from bench.metrics.manifold import ManifoldMetric, neighbourhoods, thinned
from bench.metrics.mmd import gaussian, kernel_sums, mmd, polynomial
from bench.metrics.reference import Reference
from bench.metrics.samples import Samples, law_reference
from bench.metrics.sliced import SlicedWasserstein, directions, sorted_distance
from bench.stats.comparison import ties_with_best
from bench.stats.resampling import influence_se


def reference_of(features, space="s"):
    moments = Moments.of(features)
    return Reference(
        "r", len(features), moments.mean, moments.cov, "hash", space, features.astype(np.float32)
    )


def statistics_of(features, groups=20):
    stats = GroupedStatistics(len(features), features.shape[1], groups, keep_features=True)
    stats.add(features.astype(np.float32), np.arange(len(features)))
    return stats


def normal(seed, n, d, scale=1.0, shift=0.0):
    return (np.random.default_rng(seed).normal(size=(n, d)) * scale + shift).astype(np.float32)


class TestKid:
    def brute(self, x, y):
        x, y = x.astype(np.float64), y.astype(np.float64)
        d = x.shape[1]
        xx, yy, xy = ((a @ b.T / d + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
        n, m = len(x), len(y)
        return (
            (xx.sum() - np.trace(xx)) / (n * (n - 1))
            + (yy.sum() - np.trace(yy)) / (m * (m - 1))
            - 2 * xy.mean()
        )

    def test_is_the_unbiased_estimator_over_all_pairs(self):
        x, y = normal(0, 90, 6, 1.2), normal(1, 70, 6)
        score = KernelMetric("kid", "s").score(statistics_of(x, 10), reference_of(y))
        assert score.value == pytest.approx(self.brute(x, y), rel=1e-10)
        assert score.debiased == score.value
        left = [self.brute(np.delete(x, np.s_[9 * g : 9 * g + 9], axis=0), y) for g in range(10)]
        np.testing.assert_allclose(score.leave_one_out, left, rtol=1e-9)

    def test_agrees_with_torch_fidelity_on_one_full_subset(self):
        metric_kid = pytest.importorskip("torch_fidelity.metric_kid")
        x, y = normal(2, 60, 8, 1.1), normal(3, 60, 8)
        theirs = metric_kid.kid_features_to_metric(
            torch.from_numpy(x).double(), torch.from_numpy(y).double(), kid_subsets=1, kid_subset_size=60
        )["kernel_inception_distance_mean"]
        score = KernelMetric("kid", "s").score(statistics_of(x), reference_of(y))
        assert score.value == pytest.approx(theirs, rel=1e-9)

    def test_tiles_do_not_change_the_sums(self, monkeypatch):
        x = torch.from_numpy(normal(4, 100, 5)).double()
        groups = [slice(0, 30), slice(30, 100)]
        whole = kernel_sums(x, polynomial, groups)
        monkeypatch.setattr("bench.metrics.tiles.TILE", 7)
        tiled = kernel_sums(x, polynomial, groups)
        np.testing.assert_allclose(tiled.rows, whole.rows, rtol=1e-12)
        np.testing.assert_allclose(tiled.blocks, whole.blocks, rtol=1e-12)
        assert tiled.squares == pytest.approx(whole.squares, rel=1e-12)

    @pytest.mark.parametrize(("scale", "expected"), [(1.0, 1.18), (1.3, 1.03)])
    def test_standard_error_is_that_of_repetition(self, scale, expected):
        """600 repetitions: rms error over true sd. Alike, where the first order vanishes, it errs upwards."""
        values, errors = [], []
        for seed in range(600):
            x, y = (
                torch.from_numpy(normal(2 * seed + side, n, 4, s)).double()
                for side, n, s in ((0, 60, scale), (1, 80, 1.0))
            )
            found = mmd(x, y, polynomial, [slice(0, 60)], kernel_sums(y, polynomial, [slice(0, 80)]))
            values.append(found.value)
            errors.append(found.se**2)
        assert math.sqrt(np.mean(errors)) / np.std(values) == pytest.approx(expected, abs=0.12)
        if scale == 1.0:
            assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(600)
            assert min(values) < 0

    def test_gaussian_kernel_mean_is_its_closed_form(self):
        """E k(x, x') of N(0, I_d) is (1 + 2 / width^2)^(-d / 2)."""
        x = torch.from_numpy(normal(5, 3000, 3)).double()
        sums = kernel_sums(x, gaussian(2.0), [slice(0, 3000)])
        assert sums.mean == pytest.approx((1 + 2 / 4) ** -1.5, rel=0.01)

    def test_cmmd_normalises_and_scales(self):
        x, y = normal(6, 50, 5), normal(7, 50, 5, shift=0.5)
        score = KernelMetric("cmmd", "s", kernel="cmmd").score(statistics_of(x), reference_of(y))
        again = KernelMetric("cmmd", "s", kernel="cmmd").score(statistics_of(7 * x), reference_of(3 * y))
        assert again.value == pytest.approx(score.value, rel=1e-5)
        a, b = (torch.nn.functional.normalize(torch.from_numpy(v).double(), dim=1) for v in (x, y))
        plain = mmd(a, b, gaussian(10.0), [slice(0, 50)], kernel_sums(b, gaussian(10.0), [slice(0, 50)]))
        assert score.value == pytest.approx(1000 * plain.value, rel=1e-9)


class TestNeighbourhoods:
    @staticmethod
    def brute(fake, real):
        """Straight from the definitions."""

        def radii(z, k):
            return np.sort(np.linalg.norm(z[:, None] - z[None], axis=2), axis=1)[:, k]

        distance = np.linalg.norm(fake[:, None] - real[None], axis=2)
        return {
            "precision": (distance <= radii(real, 3)).any(1).mean(),
            "recall": (distance <= radii(fake, 3)[:, None]).any(0).mean(),
            "density": (distance <= radii(real, 5)).sum() / (5 * len(fake)),
            "coverage": (distance <= radii(real, 5)).any(0).mean(),
        }

    @pytest.mark.parametrize("tile", [1024, 13])
    def test_against_the_definitions(self, monkeypatch, tile):
        monkeypatch.setattr("bench.metrics.tiles.TILE", tile)
        fake, real = (normal(s, 80, 3, scale).astype(np.float64) for s, scale in ((0, 0.7), (1, 1.0)))
        groups = [slice(20 * g, 20 * g + 20) for g in range(4)]
        found = neighbourhoods(torch.from_numpy(fake), torch.from_numpy(real), groups)
        assert found.values == pytest.approx(self.brute(fake, real))
        for g, group in enumerate(groups):
            rest = self.brute(np.delete(fake, group, axis=0), real)
            assert {name: left[g] for name, left in found.leave_one_out.items()} == pytest.approx(rest)

    def test_agrees_with_torch_fidelity(self):
        metric_prc = pytest.importorskip("torch_fidelity.metric_prc")
        fake, real = normal(2, 200, 4, 0.6), normal(3, 200, 4)
        theirs = metric_prc.prc_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real))
        stats, reference = statistics_of(fake), reference_of(real)
        for name in ("precision", "recall"):
            score = ManifoldMetric(name, "s", name).score(stats, reference)
            assert score.value == pytest.approx(theirs[name], abs=1e-6)

    def test_errors_are_right_or_cautious(self):
        """100 repetitions: reported error over true spread. Nothing is extrapolated beyond what can be."""
        real = normal(0, 150, 8)
        scores = {name: [] for name in ("precision", "recall", "density", "coverage")}
        for seed in range(1, 101):
            stats = statistics_of(normal(seed, 150, 8, 0.8))
            reference = reference_of(real)
            for name, found in scores.items():
                found.append(ManifoldMetric(name, "s", name).score(stats, reference))
        for name, found in scores.items():
            ratio = np.sqrt(np.mean([s.se**2 for s in found])) / np.std([s.value for s in found])
            assert 0.8 < ratio < (2.1 if name in ("recall", "coverage") else 1.25), name
            assert all(s.debiased == s.value for s in found)

    def test_equal_sets_are_covered(self):
        x = normal(4, 100, 5)
        for name in ("precision", "recall", "coverage"):
            assert ManifoldMetric(name, "s", name).score(statistics_of(x), reference_of(x)).value == 1.0

    def test_separate_sets_are_not(self):
        x, y = normal(5, 100, 5), normal(6, 100, 5, shift=100)
        for name in ("precision", "recall", "density", "coverage"):
            assert ManifoldMetric(name, "s", name).score(statistics_of(x), reference_of(y)).value == 0.0

    def test_larger_reference_is_thinned_to_equal_numbers(self):
        x, y = normal(7, 50, 3), normal(8, 150, 3)
        whole = ManifoldMetric("recall", "s", "recall").score(statistics_of(x), reference_of(y))
        part = ManifoldMetric("recall", "s", "recall").score(statistics_of(x), reference_of(y[::3]))
        assert whole.value == part.value
        assert np.array_equal(thinned(y, 50), y[::3])
        fewer = ManifoldMetric("recall", "s", "recall").score(statistics_of(y), reference_of(x))
        assert fewer.flags == ("fewer-references",)

    def test_too_few_images_are_refused(self):
        with pytest.raises(UsageError, match="more than 5 samples"):
            ManifoldMetric("recall", "s", "recall").score(
                statistics_of(normal(9, 5, 2)), reference_of(normal(1, 50, 2))
            )


class TestInceptionScore:
    def features(self, logits):
        logs = torch.log_softmax(torch.from_numpy(logits), 1)
        return torch.cat([logs.exp(), (logs.exp() * logs).sum(1, keepdim=True)], 1).numpy()

    def score(self, logits, groups=20):
        features = self.features(logits)
        stats = GroupedStatistics(len(features), features.shape[1], groups)
        stats.add(features, np.arange(len(features)))
        return InceptionScore().score(stats, moments_reference(Moments.of(features), "s", name="r"))

    def test_sure_and_varied_is_the_number_of_classes(self):
        logits = 1000.0 * np.eye(8)[np.arange(80) % 8]
        assert self.score(logits).value == pytest.approx(8, rel=1e-9)
        assert self.score(np.zeros((80, 8))).value == pytest.approx(1, rel=1e-9)

    def test_agrees_with_torch_fidelity(self):
        metric_isc = pytest.importorskip("torch_fidelity.metric_isc")
        logits = np.random.default_rng(0).normal(size=(200, 30)) * 2
        theirs = metric_isc.isc_features_to_metric(torch.from_numpy(logits), splits=1)["inception_score_mean"]
        found = self.score(logits)
        assert found.value == pytest.approx(theirs, rel=1e-9)
        left = metric_isc.isc_features_to_metric(torch.from_numpy(logits[10:]), splits=1, shuffle=False)
        assert found.leave_one_out[0] == pytest.approx(left["inception_score_mean"], rel=1e-9)


class TestCopying:
    def test_nearest_distances_are_exact_for_copies(self):
        train = normal(0, 300, 10, 100)
        x = np.concatenate([train[40:41], train[7:8] + np.float32(0.5)])
        assert nearest_distances(x, train)[0] == 0.0
        brute = np.linalg.norm(x[1].astype(np.float64) - train.astype(np.float64), axis=1).min()
        assert nearest_distances(x, train)[1] == pytest.approx(brute, rel=1e-12)

    @pytest.mark.parametrize(("held_out", "expected"), [(True, 1.0), (False, 0.87)])
    def test_standard_error_is_that_of_repetition(self, held_out, expected):
        """Fresh samples against 250 other fresh images, or the 250 training images, all drawn anew.

        By design 2.5% are called copies; the 250 images are most of the error. Distances of training images
        to one another are not independent, so that the error is a little too small there.
        """
        values, errors, called = [], [], 0
        for seed in range(0, 600, 3):
            fresh = reference_of(normal(seed + 1, 250, 4)) if held_out else None
            metric = CopyingMetric("copying", "s", held_out=fresh)
            score = metric.score(
                statistics_of(normal(seed + 2, 2000, 4)), reference_of(normal(seed + 3_000, 250, 4))
            )
            values.append(score.value)
            errors.append(score.se**2)
            called += "copies-training-images" in score.flags
        assert math.sqrt(np.mean(errors)) / np.std(values) == pytest.approx(expected, abs=0.12)
        assert abs(np.mean(values) - 0.5) < 4 * np.std(values) / math.sqrt(200)
        assert called / 200 < (0.06 if held_out else 0.1)

    def test_error_is_that_of_both_placements(self):
        """DeLong et al. 1988 by brute force: var of either sample's mean wins over its number."""
        train, fresh, x = (normal(seed, n, 3) for seed, n in ((30, 80), (31, 50), (32, 60)))
        metric = CopyingMetric("copying", "s", held_out=reference_of(fresh))
        score = metric.score(statistics_of(x, 60), reference_of(train))
        wins = nearest_distances(x, train)[:, None] < nearest_distances(fresh, train)
        assert score.value == pytest.approx(wins.mean(), rel=1e-12)
        expected = wins.mean(1).var(ddof=1) / 60 + wins.mean(0).var(ddof=1) / 50
        assert score.se**2 == pytest.approx(expected, rel=1e-9)

    def test_neither_copies_nor_noise_are_best(self):
        train, fresh = normal(33, 1000, 8), normal(34, 1000, 8)
        metric = CopyingMetric("copying", "s", held_out=reference_of(fresh))
        samples = {
            "copies": train[:400] + normal(35, 400, 8, 0.01),
            "fresh": normal(36, 400, 8),
            "noise": normal(37, 400, 8, 3.0),
        }
        column = {name: metric.score(statistics_of(x), reference_of(train)) for name, x in samples.items()}
        assert ties_with_best(column) == ("fresh", [])

    def test_fresh_samples_are_even_and_copies_are_caught(self):
        train = normal(1, 1500, 8)
        reference = reference_of(train)
        metric = CopyingMetric("copying", "s")
        fresh = metric.score(statistics_of(normal(2, 1000, 8)), reference)
        assert abs(fresh.value - 0.5) < 3 * fresh.se
        assert fresh.flags == ()
        copies = metric.score(statistics_of(train[:400] + normal(3, 400, 8, 0.01)), reference)
        assert copies.value > 0.99
        assert copies.flags == ("copies-training-images",)
        far = metric.score(statistics_of(normal(4, 400, 8, 3.0)), reference)
        assert far.value < 0.1

    def test_half_copies_lie_between(self):
        """Half exact copies, half fresh: 1/2 * 1 + 1/2 * 1/2."""
        train = normal(5, 1500, 8)
        mixed = np.concatenate([train[:500], normal(6, 500, 8)])[np.random.default_rng(0).permutation(1000)]
        score = CopyingMetric("copying", "s").score(statistics_of(mixed), reference_of(train))
        assert score.value == pytest.approx(0.75, abs=0.03)

    def test_held_out_images_are_the_baseline_where_given(self):
        train, fresh = normal(7, 1000, 8), normal(8, 1000, 8)
        with_held_out = CopyingMetric("copying", "s", held_out=reference_of(fresh))
        score = with_held_out.score(statistics_of(fresh), reference_of(train))
        assert score.value == pytest.approx(0.5, abs=1e-12)
        elsewhere = CopyingMetric("copying", "s", held_out=reference_of(fresh, space="other"))
        with pytest.raises(UsageError, match="another feature space"):
            elsewhere.score(statistics_of(fresh), reference_of(train))

    def test_the_baseline_is_that_of_the_training_set_at_hand(self):
        """Fresh images score 1/2 against either of two training sets, whichever came first."""
        fresh = normal(9, 300, 8)
        metric = CopyingMetric("copying", "s", held_out=reference_of(fresh))
        for train in (normal(10, 300, 8), normal(11, 300, 8, 3.0)):
            value = metric.score(statistics_of(fresh), reference_of(train)).value
            assert value == pytest.approx(0.5, abs=1e-12)


class TestSlicedWasserstein:
    def test_one_dimension_is_the_sorted_distance(self):
        x, y = normal(0, 50, 1), normal(1, 50, 1, 2.0, 1.0)
        score = SlicedWasserstein("sw", "s").score(statistics_of(x), reference_of(y))
        expected = np.mean((np.sort(x[:, 0].astype(float)) - np.sort(y[:, 0].astype(float))) ** 2)
        assert score.value == pytest.approx(expected, rel=1e-6)

    def test_shift_is_its_square(self):
        """Moving every sample by v: SW^2 = |v|^2 / d in the mean over directions, times d |v|^2."""
        x = normal(2, 200, 20)
        shift = np.full(20, 0.3, dtype=np.float32)
        score = SlicedWasserstein("sw", "s").score(statistics_of(x + shift), reference_of(x))
        theta = directions(20)
        assert score.value == pytest.approx(20 * float(np.mean((shift @ theta) ** 2)), rel=1e-4)
        assert score.value == pytest.approx(20 * 0.09, rel=0.25)

    def test_unequal_numbers_interpolate_quantiles(self):
        grid = np.linspace(0, 1, 1001)[:, None]
        assert sorted_distance(grid[::10] * 1.0, grid) == pytest.approx(0.0, abs=1e-4)
        assert sorted_distance(grid[::10] + 2.0, grid) == pytest.approx(4.0, rel=1e-2)

    def test_sees_what_two_moments_do_not(self):
        """Gaussian against +-1 coin flips of equal mean and covariance: Frechet 0 within its error."""
        x = np.random.default_rng(3).choice([-1.0, 1.0], size=(2000, 2)).astype(np.float32)
        reference = reference_of(normal(4, 20000, 2))
        sliced = SlicedWasserstein("sw", "s").score(statistics_of(x), reference)
        frechet = FrechetMetric("fd", "s").score(statistics_of(x), reference)
        assert frechet.value < 0.01
        assert sliced.value > 0.1
        assert sliced.value > 20 * sliced.se


class TestInfluence:
    def setup_method(self):
        rng = np.random.default_rng(0)
        self.d = 6
        mix = rng.normal(size=(self.d, self.d))
        self.reference = law_reference(
            np.zeros(self.d), mix @ mix.T + np.eye(self.d), (1, 1, self.d), name="law"
        )
        self.x = rng.normal(size=(400, self.d)) @ rng.normal(size=(self.d, self.d)) + 0.3

    def test_optimal_map_carries_one_gaussian_to_the_other(self):
        moments = Moments.of(self.x)
        t = optimal_map(moments, self.reference)
        np.testing.assert_allclose(t, t.T, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(t @ moments.cov @ t, self.reference.cov, rtol=1e-8, atol=1e-10)

    def test_is_the_derivative_of_the_distance(self):
        """(f(with a little more weight on x_i) - f) / weight, by moments of weighted samples."""
        found = influence(self.x, self.reference)
        moments = Moments.of(self.x)
        mean, cov = moments.mean, moments.cov
        base = self.reference.frechet.distance(mean, cov)
        weight = 1e-6
        for i in (0, 17, 399):
            away = self.x[i] - mean
            mixed = (1 - weight) * cov + weight * (1 - weight) * np.outer(away, away)
            moved = self.reference.frechet.distance(mean + weight * away, mixed)
            assert (moved - base) / weight == pytest.approx(found[i], rel=1e-3, abs=1e-3)

    def test_means_are_zero(self):
        found = influence(self.x, self.reference)
        assert abs(found.mean()) < 0.01 * found.std()

    def test_error_is_that_of_repetition(self):
        rng = np.random.default_rng(1)
        values, errors = [], []
        for _ in range(300):
            x = rng.normal(size=(300, self.d)) * 1.5
            values.append(self.reference.frechet.distance_to(Moments.of(x)))
            errors.append(influence_se(influence(x, self.reference)))
        assert np.mean(errors) / np.std(values) == pytest.approx(1.0, abs=0.15)

    def test_singular_covariances_are_refused(self):
        with pytest.raises(UsageError, match="use the jackknife"):
            influence(self.x[:5], self.reference)


class TestLaw:
    def test_samples_are_taken_as_they_are(self):
        x = torch.randn(5, 1, 2, 3)
        space = Samples((1, 2, 3))
        assert torch.equal(space(x), x.flatten(1))
        with pytest.raises(UsageError, match="expects x_0 as floats"):
            space((x * 100).to(torch.uint8))

    def test_debiased_distance_of_draws_from_the_law_is_zero(self):
        """FD_N is biased by about d / (2 n) (1 + ...); the jackknife is not, within its error."""
        cov = np.diag([1.0, 2.0, 0.5, 4.0])
        reference = law_reference(np.ones(4), cov, (1, 2, 2), name="law")
        x = (np.random.default_rng(0).normal(size=(2000, 4)) * np.sqrt(np.diag(cov)) + 1).astype(np.float32)
        stats = GroupedStatistics(2000, 4)
        stats.add(x, range(2000))
        score = FrechetMetric("fd_law", "samples", quantisation="none").score(stats, reference)
        assert score.value > 0
        assert abs(score.debiased) < 4 * score.se
        assert score.quantisation == "none"
        assert score.flags == ()
