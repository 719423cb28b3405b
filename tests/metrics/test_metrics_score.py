"""From images to a score: feature space, reference cache, Frechet metric, JSON."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.references import moments_reference

from bench.errors import UnknownNameError, UsageError
from bench.metrics import (
    FrechetMetric,
    GroupedStatistics,
    Moments,
    Score,
    frechet_distance,
    get_space,
    import_npz,
    reference_statistics,
)
from bench.metrics.copying import CopyingMetric
from bench.metrics.frechet_score import remaining_bias
from bench.metrics.inception_score import InceptionScore
from bench.metrics.kernel import KernelMetric
from bench.metrics.manifold import ManifoldMetric
from bench.metrics.pixels import Pixels
from bench.metrics.reference import Reference
from bench.metrics.samples import law_reference
from bench.metrics.sliced import SlicedWasserstein

SHAPE = (1, 3, 3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMPLER_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "references"


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, size=(200, *SHAPE), dtype=np.uint8)


class Counting(Pixels):
    """The pixel space, counting the images it is shown."""

    seen = 0

    def __call__(self, images):
        type(self).seen += len(images)
        return super().__call__(images)


@pytest.fixture
def counting():
    Counting.seen = 0
    return Counting(SHAPE)


def score_of(features, reference, **options):
    stats = GroupedStatistics(len(features), features.shape[1], **options)
    stats.add(features, np.arange(len(features)))
    return FrechetMetric("fd_pixels", "pixels").score(stats, reference)


def test_pixels_are_values_over_255(images):
    space = get_space("pixels", SHAPE)
    features = space(torch.from_numpy(images))
    assert space.dim == 9
    assert features.dtype == torch.float32
    np.testing.assert_array_equal(features.numpy(), (images.reshape(200, 9) / np.float32(255)))


def test_spaces_of_other_images_have_other_fingerprints():
    assert get_space("pixels", SHAPE).fingerprint == get_space("pixels", SHAPE).fingerprint
    assert get_space("pixels", (1, 3, 4)).fingerprint != get_space("pixels", (1, 4, 3)).fingerprint


def test_unknown_space_gets_a_suggestion():
    with pytest.raises(UnknownNameError, match="did you mean pixels"):
        get_space("pixel", SHAPE)


def test_reference_is_numpy_mean_and_cov(images):
    reference = reference_statistics(images, get_space("pixels", SHAPE), batch=30)
    flat = (images.reshape(200, 9) / np.float32(255)).astype(np.float64)
    np.testing.assert_allclose(reference.mean, flat.mean(0), rtol=1e-13)
    np.testing.assert_allclose(reference.cov, np.cov(flat, rowvar=False), rtol=1e-11, atol=1e-15)
    assert reference.n == 200


def test_cache_answers_for_equal_content_only(images, counting):
    first = reference_statistics(images, counting)
    assert Counting.seen == 200
    again = reference_statistics(torch.from_numpy(images.copy()), counting, batch=7)
    assert Counting.seen == 200
    assert again.hash == first.hash
    assert np.array_equal(again.cov, first.cov)

    images[123, 0, 1, 2] ^= 1
    changed = reference_statistics(images, counting)
    assert Counting.seen == 400
    assert changed.hash != first.hash
    assert not np.array_equal(changed.mean, first.mean)

    reference_statistics(images[:199], counting)
    assert Counting.seen == 599


def test_cache_knows_the_feature_space(images, counting):
    class OtherWeights(Counting):
        @property
        def fingerprint(self):
            return "pixels-other"

    first = reference_statistics(images, counting)
    other = reference_statistics(images, OtherWeights(SHAPE))
    assert OtherWeights.seen == 200 + 200
    assert other.hash != first.hash


def test_same_bytes_in_another_shape_are_other_data(images):
    one = reference_statistics(images, Pixels(SHAPE))
    other = reference_statistics(images.reshape(200, 1, 1, 9), Pixels((1, 1, 9)))
    assert one.data_hash != other.data_hash


def test_damaged_cache_is_computed_anew(images, counting, cache):
    first = reference_statistics(images, counting)
    (path,) = cache.glob("*.npz")
    path.write_bytes(path.read_bytes()[:500])
    again = reference_statistics(images, counting)
    assert Counting.seen == 400
    assert np.array_equal(again.cov, first.cov)
    reference_statistics(images, counting)
    assert Counting.seen == 400


def test_iterators_functions_and_arrays_give_one_reference(images, counting):
    whole = torch.from_numpy(images)
    forms = [whole, whole.numpy(), list(whole.split(33)), lambda: iter(whole.split(50)), iter(whole.split(9))]
    assert len({reference_statistics(form, counting).hash for form in forms}) == 1


def test_kept_features(images, counting):
    with_features = reference_statistics(images, counting, needs="features")
    assert with_features.need_features("kid").shape == (200, 9)
    assert reference_statistics(images, counting, needs="features").features is not None
    assert Counting.seen == 200
    assert np.array_equal(reference_statistics(images, counting).mean, with_features.mean)
    assert Counting.seen == 200
    without = moments_reference(Moments.of(with_features.features), "s", name="r")
    with pytest.raises(UsageError, match="kid needs every feature vector"):
        without.need_features("kid")


def test_reference_refuses_images_of_other_types(images, counting):
    with pytest.raises(UsageError, match="must be uint8"):
        reference_statistics(images.astype(np.float32), counting)
    with pytest.raises(UsageError, match="at least 2"):
        reference_statistics(images[:1], counting)


def test_import_npz(tmp_path):
    rng = np.random.default_rng(1)
    moments = Moments.of(rng.normal(size=(100, 5)))
    path = tmp_path / "cifar10-32x32.npz"
    np.savez(path, mu=moments.mean, sigma=moments.cov)
    reference = import_npz(path, "inception_2048-abc")
    x = rng.normal(size=(300, 5)) + 1
    score = score_of(x, reference)
    truth = frechet_distance(moments.mean, moments.cov, x.mean(0), np.cov(x, rowvar=False))
    assert score.value == pytest.approx(truth, rel=1e-12)
    assert "imported-reference" in score.flags
    np.savez(path, mu=moments.mean + 1e-9, sigma=moments.cov)
    assert import_npz(path, "inception_2048-abc").hash != reference.hash


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"not an archive at all"])
def test_import_refuses_broken_files(tmp_path, content):
    path = tmp_path / "stats.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"is not an \.npz file with mu and sigma"):
        import_npz(path, "x")


def test_import_refuses_pickles_and_missing_parts(tmp_path):
    path = tmp_path / "stats.npz"
    np.savez(path, mu=np.array([{"code": 1}], dtype=object), sigma=np.eye(1))
    with pytest.raises(UsageError, match=r"is not an \.npz file"):
        import_npz(path, "x")
    np.savez(path, mu=np.zeros(3))
    with pytest.raises(UsageError, match="sigma"):
        import_npz(path, "x")
    np.savez(path, mu=np.zeros(3), sigma=np.eye(4))
    with pytest.raises(UsageError, match=r"mu \(3,\) and sigma \(4, 4\)"):
        import_npz(path, "x")
    np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(UsageError, match="has 3 features, inception_768 has 768"):
        import_npz(path, "inception_768-abc", dim=768)


@pytest.mark.parametrize(
    ("mean", "cov", "sentence"),
    [
        ([0.0, np.nan], np.eye(2), "not finite"),
        ([0.0, 0.0], [[1.0, np.inf], [np.inf, 1.0]], "not finite"),
        ([0.0, 0.0], [[1.0, 0.5], [0.4, 1.0]], "not symmetric"),
        ([0.0, 0.0], np.diag([1.0, -0.1]), "cannot have the eigenvalue -0.1"),
    ],
)
def test_import_refuses_what_is_no_gaussian(tmp_path, mean, cov, sentence):
    path = tmp_path / "stats.npz"
    np.savez(path, mu=mean, sigma=cov)
    with pytest.raises(UsageError, match=sentence) as refusal:
        import_npz(path, "x")
    assert str(path) in str(refusal.value)


def test_import_of_guided_diffusion_puts_spatial_features_in_our_order(tmp_path):
    """Its spatial features are the 17 x 17 x 7 map with channels last, flattened; ours has them first."""
    rng = np.random.default_rng(4)
    maps = rng.normal(size=(40, 7, 17, 17))
    ours, theirs = maps.reshape(40, -1), maps.transpose(0, 2, 3, 1).reshape(40, -1)
    spatial = {"mu_s": theirs.mean(0), "sigma_s": np.cov(theirs, rowvar=False)}
    path = tmp_path / "reference.npz"
    np.savez(path, mu=np.zeros(2), sigma=np.eye(2), arr_0=np.zeros((1, 2, 2, 3), np.uint8), **spatial)
    found = import_npz(path, "inception_spatial-abc", dim=2023)
    np.testing.assert_allclose(found.mean, ours.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.cov, np.cov(ours, rowvar=False), rtol=1e-11, atol=1e-13)
    assert import_npz(path, "inception_2048-abc").mean.size == 2
    np.savez(path, mu=np.zeros(2), sigma=np.eye(2), mu_s=np.zeros(3), sigma_s=np.eye(3))
    with pytest.raises(UsageError, match="3 spatial features"):
        import_npz(path, "inception_spatial-abc")


def test_score_is_the_distance_and_its_jackknife():
    """Every part of the score against its definition, computed from the features themselves."""
    rng = np.random.default_rng(2)
    reference = moments_reference(Moments.of(rng.normal(size=(1000, 4))), "pixels-1", name="r")
    x = rng.normal(size=(100, 4)) * 1.2
    score = score_of(x, reference, groups=10)

    def distance(rows):
        return frechet_distance(reference.mean, reference.cov, rows.mean(0), np.cov(rows, rowvar=False))

    left = np.array([distance(np.delete(x, np.s_[10 * g : 10 * g + 10], axis=0)) for g in range(10)])
    assert score.value == pytest.approx(distance(x), rel=1e-10)
    np.testing.assert_allclose(score.leave_one_out, left, rtol=1e-8)
    assert score.debiased == pytest.approx(10 * distance(x) - 9 * left.mean(), rel=1e-7)
    assert score.se == pytest.approx(math.sqrt(0.9 * ((left - left.mean()) ** 2).sum()), rel=1e-6)
    assert (score.n, score.space, score.reference, score.flags) == (100, "pixels-1", reference.hash, ())


def test_flags():
    rng = np.random.default_rng(3)
    reference = moments_reference(Moments.of(rng.normal(size=(100, 12))), "s", name="r")
    assert score_of(rng.normal(size=(12, 12)), reference).flags == ("rank-deficient",)
    flat = rng.normal(size=(100, 12))
    flat[:, 5] = 1.0
    singular = moments_reference(Moments.of(flat), "s", name="r")
    assert score_of(rng.normal(size=(100, 12)), singular).flags == ("singular-reference",)
    stats = GroupedStatistics(200, 12)
    stats.add(rng.normal(size=(100, 12)), np.arange(100))
    assert FrechetMetric("m", "s").score(stats, reference).flags == ("incomplete",)
    two = score_of(rng.normal(size=(2, 12)), reference)
    assert math.isnan(two.se) and "no-error" in two.flags
    with pytest.raises(UsageError, match="at least 2 samples, got 1"):
        score_of(rng.normal(size=(1, 12)), reference)
    with pytest.raises(UsageError, match="has 12; build the reference in the same"):
        score_of(rng.normal(size=(50, 3)), reference)


def test_few_samples_are_flagged_where_their_bias_outweighs_their_error():
    """Rank is full in all of these; d=64 takes 2 to 3 samples a feature, d=8 hardly more than full rank."""
    rng = np.random.default_rng(5)

    def flags(n, dim):
        reference = moments_reference(Moments.of(rng.normal(size=(4000, dim))), "s", name="r")
        return score_of(1.1 * rng.normal(size=(n, dim)), reference).flags

    assert flags(80, 64) == ("few-samples",)
    assert flags(512, 64) == ()
    assert flags(40, 8) == ()


def test_remaining_bias_is_the_leading_term_of_what_repetition_shows():
    """d=32, N=96, samples of the law itself, so that the truth is 0: 1.4 times the term is left."""
    law = law_reference(np.zeros(32), np.eye(32), (1, 1, 32), name="law")
    rng = np.random.default_rng(6)
    scores = [score_of(rng.normal(size=(96, 32)), law) for _ in range(100)]
    left = np.mean([score.debiased for score in scores])
    assert 1.0 < -left / np.mean([remaining_bias(s.value, s.debiased, 96, 32) for s in scores]) < 1.9


def every_kind(space):
    return [
        FrechetMetric("fd_x", space),
        KernelMetric("kid_x", space),
        ManifoldMetric("precision_x", space, "precision"),
        ManifoldMetric("recall_x", space, "recall"),
        CopyingMetric("copying_x", space),
        SlicedWasserstein("sliced_x", space),
        InceptionScore("is_x", space),
    ]


@pytest.mark.parametrize(
    ("space", "fingerprint", "other"),
    [
        ("inception_768", "inception_768_of_1234abcd-0123456789ab", True),
        ("inception_2048_any", "inception_2048_of_1234abcd-0123456789ab", True),
        ("dinov2_l14", "dinov2_l14_of_1234abcd-0123456789ab", True),
        ("inception_768", "inception_768-0123456789ab", False),
        ("pixels", "pixels-0123456789ab", False),
    ],
)
def test_every_score_says_so_where_the_weights_are_others(space, fingerprint, other):
    features = np.random.default_rng(7).random((200, 4)).astype(np.float32)
    moments = Moments.of(features)
    reference = Reference("r", 200, moments.mean, moments.cov, "hash", fingerprint, features)
    stats = GroupedStatistics(200, 4, keep_features=True)
    stats.add(np.random.default_rng(8).random((200, 4)).astype(np.float32), np.arange(200))
    for metric in every_kind(space):
        assert ("other-weights" in metric.score(stats, reference).flags) == other, metric.name


def test_every_score_says_so_where_the_reference_was_imported():
    features = np.random.default_rng(7).random((200, 4)).astype(np.float32)
    moments = Moments.of(features)
    reference = Reference("r", 0, moments.mean, moments.cov, "hash", "s-1", features, imported=True)
    stats = GroupedStatistics(200, 4, keep_features=True)
    stats.add(np.random.default_rng(8).random((200, 4)).astype(np.float32), np.arange(200))
    for metric in every_kind("s"):
        uses = getattr(metric, "uses_reference", True)
        assert ("imported-reference" in metric.score(stats, reference).flags) == uses, metric.name


def test_json_keeps_every_bit():
    score = Score("fid", 1 / 3, 0.1 + 0.2, 1e-300, (0.1, 2 / 3), 10, "s", "r", flags=("rank-deficient",))
    assert Score.from_json(json.loads(json.dumps(score.to_json(), allow_nan=False))) == score
    assert "target" not in score.to_json()
    aimed = replace(score, target=0.5)
    assert Score.from_json(json.loads(json.dumps(aimed.to_json()))) == aimed
    nan = Score("fid", 1.0, math.nan, math.nan, (math.inf,), 2, "s", "r")
    text = json.dumps(nan.to_json(), allow_nan=False)
    back = Score.from_json(json.loads(text))
    assert math.isnan(back.debiased) and math.isnan(back.se) and math.isnan(back.leave_one_out[0])
