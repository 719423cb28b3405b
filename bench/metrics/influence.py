"""The delta method for the Frechet distance: what each sample contributes to it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bench.device.threads import one_blas_thread
from bench.errors import UsageError
from bench.metrics.frechet import FrechetReference
from bench.metrics.frechet_score import FrechetMetric
from bench.metrics.groups import GroupedStatistics
from bench.metrics.metric import Metric
from bench.metrics.moments import Array, Moments
from bench.metrics.reference import Reference

_CHUNK = 4096


def influence_of(metric: Metric, sample: GroupedStatistics, reference: Reference) -> Array | None:
    """Return the influence values of a sample whose features were kept, in the order of the sample indices.

    None for a score that is no Frechet distance, and where a covariance is singular: the jackknife is all
    there is then.
    """
    if not isinstance(metric, FrechetMetric):
        return None
    try:
        return influence(sample.features, reference)
    except UsageError:
        return None


@one_blas_thread
def influence(features: npt.ArrayLike, reference: Reference) -> Array:
    """Influence values (n,) of the samples on their Frechet distance to ``reference``.

    IF_i = 2 (mu_g - mu)^T (x_i - mu_g) + (x_i - mu_g)^T Q (x_i - mu_g) - tr(S_g Q), with Q = I - T and
    T = A (A^T S_g A)^(-1/2) A^T, S = A A^T the reference's covariance: T is the optimal map from the samples'
    Gaussian to the reference's. ``bench.stats.influence_se`` of them is the standard error of the distance;
    of the difference of two samples' values that share noise, the error of the difference.

    Args:
        features: (n, d), n > d.
        reference: mean and covariance, of full rank.

    Raises:
        UsageError: if either covariance is singular.
    """
    x = np.asarray(features, dtype=np.float64)
    moments = Moments.of(x)
    transport = optimal_map(moments, reference)
    q = np.eye(moments.dim) - transport
    values = np.empty(len(x))
    pull = 2.0 * (moments.mean - reference.mean)
    for start in range(0, len(x), _CHUNK):
        centred = x[start : start + _CHUNK] - moments.mean
        values[start : start + _CHUNK] = centred @ pull + np.einsum("ij,ij->i", centred @ q, centred)
    return values - float(np.sum(moments.cov * q))


@one_blas_thread
def optimal_map(moments: Moments, reference: Reference) -> Array:
    """T with T S_g T = S, symmetric: the linear part of the optimal transport between the two Gaussians."""
    if moments.n <= moments.dim or not reference.frechet.full_rank:
        raise UsageError(
            f"influence values need more samples than features ({moments.n} of {moments.dim}) and a reference"
            " of full rank; use the jackknife"
        )
    target, source = reference.frechet.factor, FrechetReference(moments.mean, moments.cov)
    # The singular values of B^T A, S_g = B B^T, keep twice the digits that eigenvalues of A^T S_g A do.
    _, values, right = np.linalg.svd(source.factor.T @ target)
    if not source.full_rank or values[-1] <= moments.dim * np.finfo(float).eps * values[0]:
        raise UsageError("influence values need a sample covariance of full rank; use the jackknife")
    half = target @ (right.T / np.sqrt(values))
    return np.asarray(half @ half.T)
