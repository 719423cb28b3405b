"""Moments and jackknife groups against numpy and exact arithmetic."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch

from bench.metrics import GroupedStatistics, Moments


@pytest.fixture
def features():
    rng = np.random.default_rng(1)
    return rng.normal(size=(500, 7)) @ rng.normal(size=(7, 7)) + rng.normal(size=7)


def test_of_is_numpy_mean_and_cov(features):
    moments = Moments.of(features)
    np.testing.assert_allclose(moments.mean, features.mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.cov, np.cov(features, rowvar=False), rtol=1e-12, atol=1e-14)


def test_merge_of_uneven_parts_is_the_whole(features):
    parts = [features[:1], features[1:4], features[4:400], features[400:400], features[400:]]
    merged = Moments.empty(7)
    for part in parts:
        merged = merged + Moments.of(part)
    whole = Moments.of(features)
    assert merged.n == 500
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-12, atol=1e-12)


def test_subtraction_leaves_the_rest(features):
    rest = Moments.of(features) - Moments.of(features[:100])
    expected = Moments.of(features[100:])
    assert rest.n == 400
    np.testing.assert_allclose(rest.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(rest.scatter, expected.scatter, rtol=1e-11, atol=1e-11)
    with pytest.raises(ValueError, match="cannot leave 500 vectors out of 100"):
        Moments.of(features[:100]) - Moments.of(features)


def test_large_mean_costs_no_digits():
    """Mean 2**27 and steps of 2**-20: exact as fractions, and lost by a sum of squares in float64."""
    rng = np.random.default_rng(2)
    small = rng.integers(-1000, 1000, size=200)
    x = 2.0**27 + small * 2.0**-20
    mean = Fraction(int(small.sum()), 200)
    scatter = float(sum((Fraction(int(v)) - mean) ** 2 for v in small) * Fraction(1, 2**40))
    whole = Moments.of(x[:, None])
    merged = Moments.of(x[:70, None]) + Moments.of(x[70:, None])
    naive = float((x**2).sum() - x.sum() ** 2 / 200)
    assert whole.scatter[0, 0] == pytest.approx(scatter, rel=1e-7)
    assert merged.scatter[0, 0] == pytest.approx(scatter, rel=1e-5)
    assert abs(naive - scatter) > 0.5 * scatter


def test_float32_features_are_summed_in_float64():
    x = torch.full((100_000, 1), 0.1, dtype=torch.float32)
    assert Moments.of(x).mean[0] == pytest.approx(float(np.float32(0.1)), rel=1e-15)


def test_arrays_keep_every_bit(features):
    moments = Moments.of(features)
    back = Moments.from_arrays(moments.to_arrays())
    assert back.n == moments.n
    assert np.array_equal(back.mean, moments.mean)
    assert np.array_equal(back.scatter, moments.scatter)
    assert np.array_equal(moments.scatter, moments.scatter.T)


def test_refuses_values_that_are_not_finite(features):
    features[3, 2] = np.nan
    features[8, 0] = np.inf
    with pytest.raises(ValueError, match="2 of 500 feature vectors"):
        Moments.of(features)


@pytest.mark.parametrize("batch", [1, 7, 64, 500])
def test_groups_do_not_depend_on_batches(features, batch):
    stats = GroupedStatistics(500, 7)
    for start in range(0, 500, batch):
        part = features[start : start + batch]
        stats.add(torch.from_numpy(part), range(start, start + len(part)))
    for group in (0, 11, 19):
        rows = features[group * 25 : (group + 1) * 25]
        np.testing.assert_allclose(stats.group(group).cov, np.cov(rows, rowvar=False), rtol=1e-10, atol=1e-12)
        rest = np.delete(features, np.s_[group * 25 : (group + 1) * 25], axis=0)
        np.testing.assert_allclose(
            stats.leave_out(group).cov, np.cov(rest, rowvar=False), rtol=1e-11, atol=1e-12
        )
    np.testing.assert_allclose(stats.total.cov, np.cov(features, rowvar=False), rtol=1e-12, atol=1e-14)


def test_groups_are_contiguous_and_even_when_n_does_not_divide():
    stats = GroupedStatistics(103, 1, groups=20)
    stats.add(np.arange(103.0)[:, None], np.arange(103))
    sizes = [stats.group(g).n for g in range(20)]
    assert sum(sizes) == 103
    assert set(sizes) == {5, 6}
    assert [stats.group(g).mean[0] for g in range(20)] == sorted(stats.group(g).mean[0] for g in range(20))


def test_shuffled_order_gives_the_same_groups_and_features(features):
    order = np.random.default_rng(3).permutation(500)
    stats = GroupedStatistics(500, 7, keep_features=True)
    for rows in np.array_split(order, 9):
        stats.add(features[rows], rows)
    straight = GroupedStatistics(500, 7, keep_features=True)
    straight.add(features, np.arange(500))
    np.testing.assert_allclose(stats.group(4).scatter, straight.group(4).scatter, rtol=1e-11)
    assert np.array_equal(stats.features, features.astype(np.float32))
    assert np.array_equal(straight.features, features.astype(np.float32))


def test_saved_blocks_merge_to_the_same_bits(features, tmp_path):
    """A resumed run reads some blocks from disk; its sums equal those of an uninterrupted one."""
    blocks = []
    for start in range(0, 500, 60):
        block = GroupedStatistics(500, 7, keep_features=True)
        part = features[start : start + 60]
        block.add(part, np.arange(start, start + len(part)))
        np.savez(tmp_path / f"{start}.npz", **block.to_arrays())
        blocks.append(block)
    fresh = GroupedStatistics(500, 7, keep_features=True)
    resumed = GroupedStatistics(500, 7, keep_features=True)
    for block in blocks:
        fresh.merge(block)
    for start in range(0, 500, 60):
        with np.load(tmp_path / f"{start}.npz", allow_pickle=False) as arrays:
            resumed.merge(GroupedStatistics.from_arrays(arrays))
    assert np.array_equal(fresh.total.scatter, resumed.total.scatter)
    assert np.array_equal(fresh.total.mean, resumed.total.mean)
    assert np.array_equal(fresh.features, resumed.features)
    np.testing.assert_allclose(fresh.total.cov, np.cov(features, rowvar=False), rtol=1e-12, atol=1e-14)


def test_no_sample_counts_twice(features):
    stats = GroupedStatistics(500, 7)
    stats.add(features[:10], range(10))
    with pytest.raises(ValueError, match="added twice"):
        stats.add(features[5:12], range(5, 12))
    with pytest.raises(ValueError, match="in both blocks"):
        GroupedStatistics(500, 7).merge(stats).merge(stats)
    with pytest.raises(ValueError, match=r"must lie in \[0, 500\)"):
        stats.add(features[:1], [500])


def test_refuses_blocks_of_another_trial(features):
    with pytest.raises(ValueError, match="different trials"):
        GroupedStatistics(500, 7).merge(GroupedStatistics(400, 7))


def test_closing_leaves_only_arrays(features):
    """Blocks go from process to process: no tensor, which might lie on a GPU, goes with them."""
    stats = GroupedStatistics(500, 7)
    stats.add(torch.from_numpy(features), range(500))
    closed = stats.close()
    assert closed is stats
    assert b"torch" not in pickle.dumps(closed)
    np.testing.assert_allclose(closed.total.cov, np.cov(features, rowvar=False), rtol=1e-12, atol=1e-14)


def test_damaged_block_is_named(features):
    block = GroupedStatistics(500, 7)
    block.add(features[:50], range(50))
    arrays = block.to_arrays()
    arrays["indices"] = arrays["indices"][:-1]
    with pytest.raises(ValueError, match="damaged"):
        GroupedStatistics.from_arrays(arrays)
