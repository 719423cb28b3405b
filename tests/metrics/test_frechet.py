"""The Frechet distance against closed forms, mpmath and torch-fidelity."""

import numpy as np
import pytest

from bench.metrics import FrechetReference, Moments, frechet_distance


def rotation(rng, d):
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def covariance(basis, eigenvalues):
    matrix = (basis * eigenvalues) @ basis.T
    return (matrix + matrix.T) / 2


def test_one_dimension_is_the_closed_form():
    """(m1 - m2)^2 + (s1 - s2)^2."""
    assert frechet_distance([1.0], [[4.0]], [3.0], [[0.25]]) == pytest.approx(4 + 1.5**2, rel=1e-14)


@pytest.mark.parametrize("condition", [1e1, 1e4, 1e8, 1e10, 1e12])
@pytest.mark.parametrize("d", [16, 200])
def test_commuting_covariances(d, condition):
    """In a common eigenbasis the distance is |m|^2 + sum (sqrt a - sqrt b)^2, at any condition."""
    rng = np.random.default_rng(d)
    basis = rotation(rng, d)
    a = np.logspace(0, -np.log10(condition), d)
    b = a * np.exp(0.3 * rng.normal(size=d))
    mean = rng.normal(size=d)
    truth = float(mean @ mean + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2))
    value = frechet_distance(np.zeros(d), covariance(basis, a), mean, covariance(basis, b))
    assert value == pytest.approx(truth, rel=1e-11)


@pytest.mark.parametrize("rank", [1, 10, 50, 99])
def test_rank_deficient(rank):
    """Zero eigenvalues in either or both, in overlapping and in disjoint subspaces."""
    rng = np.random.default_rng(rank)
    d = 100
    basis = rotation(rng, d)
    low = np.concatenate([rng.uniform(0.5, 2, rank), np.zeros(d - rank)])
    other_end = low[::-1].copy()
    full = rng.uniform(0.5, 2, d)
    zero = np.zeros(d)
    for a, b in [(low, full), (full, low), (low, other_end), (low, low * 2)]:
        truth = float(np.sum((np.sqrt(a) - np.sqrt(b)) ** 2))
        value = frechet_distance(zero, covariance(basis, a), zero, covariance(basis, b))
        assert value == pytest.approx(truth, rel=1e-11)


def test_general_covariances_against_mpmath():
    """Eigenvalues of the product S1 S2 in 60 digits; the covariances do not commute."""
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(5)
    d = 8
    s1 = covariance(rotation(rng, d), np.logspace(0, -7, d))
    s2 = covariance(rotation(rng, d), np.logspace(0, -9, d))
    with mpmath.workdps(60):
        product = mpmath.matrix(s1.tolist()) * mpmath.matrix(s2.tolist())
        values = mpmath.eig(product, left=False, right=False)
        cross = sum(mpmath.sqrt(mpmath.re(v)) for v in values)
        truth = float(mpmath.mpf(np.trace(s1)) + mpmath.mpf(np.trace(s2)) - 2 * cross)
    assert frechet_distance(np.zeros(d), s1, np.zeros(d), s2) == pytest.approx(truth, rel=1e-11)


def test_rank_is_judged_whatever_the_units():
    """Features of very different units are not taken for rank-deficient; linearly dependent ones are."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(100, 4))
    for units in (np.ones(4), np.array([1.0, 1e-9, 1e9, 1e-3])):
        assert FrechetReference(np.zeros(4), np.cov(x * units, rowvar=False)).full_rank
    dependent = np.column_stack([x, x @ [1.0, 1e-3, -2.0, 5.0]])
    assert not FrechetReference(np.zeros(5), np.cov(dependent, rowvar=False)).full_rank


def test_identical_is_zero_and_never_negative():
    rng = np.random.default_rng(7)
    for n in (30, 300):
        moments = Moments.of(rng.normal(size=(n, 60)) * 100)
        value = frechet_distance(moments.mean, moments.cov, moments.mean, moments.cov)
        assert 0.0 <= value < 1e-9 * np.trace(moments.cov)


def test_symmetry():
    rng = np.random.default_rng(8)
    a, b = (Moments.of(rng.normal(size=(n, 50)) @ rng.normal(size=(50, 50))) for n in (40, 200))
    one = frechet_distance(a.mean, a.cov, b.mean, b.cov)
    assert frechet_distance(b.mean, b.cov, a.mean, a.cov) == pytest.approx(one, rel=1e-12)


@pytest.mark.parametrize("n", [40, 64, 400])
def test_known_rank_and_public_function_agree(n):
    """The path from moments, which knows that n vectors span n - 1 dimensions, and the one from matrices."""
    rng = np.random.default_rng(n)
    reference = Moments.of(rng.normal(size=(1000, 64)))
    sample = Moments.of(rng.normal(size=(n, 64)) * 1.3)
    public = frechet_distance(reference.mean, reference.cov, sample.mean, sample.cov)
    prepared = FrechetReference(reference.mean, reference.cov, rank=999).distance_to(sample)
    assert prepared == pytest.approx(public, rel=1e-11)


@pytest.mark.parametrize("d", [64, 300])
def test_agrees_with_torch_fidelity(d):
    """The published statistics function on the same float64 features, to 1e-9."""
    metric_fid = pytest.importorskip("torch_fidelity.metric_fid")
    rng = np.random.default_rng(d)
    mix = rng.normal(size=(d, d)) * np.exp(-np.arange(d) / 40)[:, None]
    x = np.maximum(rng.normal(size=(2000, d)) @ mix, 0)
    y = np.maximum(rng.normal(size=(2000, d)) @ mix + 0.2, 0)
    a, b = Moments.of(x), Moments.of(y)
    theirs = metric_fid.fid_statistics_to_metric(
        {"mu": a.mean, "sigma": a.cov}, {"mu": b.mean, "sigma": b.cov}, False
    )["frechet_inception_distance"]
    assert frechet_distance(a.mean, a.cov, b.mean, b.cov) == pytest.approx(theirs, rel=1e-9)


def test_refusals():
    eye = np.eye(2)
    with pytest.raises(ValueError, match="shapes"):
        frechet_distance([0.0], eye, [0.0, 0.0], eye)
    with pytest.raises(ValueError, match="one feature space"):
        frechet_distance([0.0], [[1.0]], [0.0, 0.0], eye)
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance([0.0, np.nan], eye, [0.0, 0.0], eye)
    with pytest.raises(ValueError, match="not symmetric"):
        frechet_distance([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]], [0.0, 0.0], eye)
    for covariances in ((np.diag([1.0, -1.0]), eye), (eye, np.diag([1.0, -1.0]))):
        with pytest.raises(ValueError, match="cannot have the eigenvalue -1"):
            frechet_distance([0.0, 0.0], covariances[0], [0.0, 0.0], covariances[1])
    with pytest.raises(ValueError, match="no features"):
        frechet_distance([], np.zeros((0, 0)), [], np.zeros((0, 0)))


@pytest.mark.parametrize(("i", "j"), [(1, 0), (299, 3), (150, 149), (290, 260)])
def test_asymmetry_is_seen_wherever_it_is(i, j):
    """The matrix is checked in tiles of 128."""
    cov = np.eye(300)
    cov[i, j] = 1e-6
    with pytest.raises(ValueError, match="not symmetric"):
        frechet_distance(np.zeros(300), np.eye(300), np.zeros(300), cov)


def test_constant_features_have_a_distance():
    """A point against a Gaussian is |m|^2 + tr S, against a point |m|^2."""
    zero, eye = np.zeros((3, 3)), np.diag([1.0, 2.0, 3.0])
    for a, b, truth in ((zero, zero, 4.0), (zero, eye, 10.0), (eye, zero, 10.0)):
        assert frechet_distance(np.zeros(3), a, [2.0, 0.0, 0.0], b) == pytest.approx(truth, rel=1e-12)
