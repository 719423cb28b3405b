"""The Frechet distance between Gaussians, in exact float64 linear algebra.

``d^2 = |mu1 - mu2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))`` (Dowson & Landau 1982; Heusel et al. 2017,
arXiv:1706.08500, eq. 6). With factors ``S1 = A A^T``, ``S2 = B B^T`` the last trace is the nuclear norm of
``A^T B``, equally the sum of the square roots of the eigenvalues of the symmetric ``A^T S2 A``. The
product ``S1 S2`` itself is not symmetric, and its square root is neither needed nor formed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import eigh, lapack

from bench.device.threads import one_blas_thread
from bench.metrics.moments import Array, Moments

_EPS = float(np.finfo(np.float64).eps)
_TOLERANCE = 1e-10
_NEGATIVE = 1e-6  # of the largest eigenvalue: more is no rounding, the matrix is no covariance
_TILE = 128


def frechet_distance(
    mu1: npt.ArrayLike, cov1: npt.ArrayLike, mu2: npt.ArrayLike, cov2: npt.ArrayLike
) -> float:
    """Squared Frechet distance between the Gaussians N(mu1, cov1) and N(mu2, cov2).

    Means are (d,), covariances (d, d) symmetric positive semi-definite, of any rank and condition;
    everything is computed in float64. The result is never negative and has the unit of the squared features.

    Raises ValueError for shapes that do not fit, values that are not finite and covariances that are
    not symmetric or have an eigenvalue that is negative beyond rounding.
    """
    return FrechetReference(mu1, cov1).distance(mu2, cov2)


@dataclass(frozen=True, eq=False)
class _Factor:
    """``matrix`` is (d, r) with ``matrix @ matrix.T`` the covariance; lower triangular when of full rank."""

    matrix: Array
    full_rank: bool

    def congruence(self, cov: Array) -> Array:
        """A^T S A; only the lower triangle is meant."""
        if not self.full_rank:
            return np.asarray(self.matrix.T @ (cov @ self.matrix))
        # A quarter of the arithmetic of two products: symmetry and the triangle are both used.
        product, _ = lapack.dsygst(cov.T, self.matrix, itype=2, lower=1)  # .T: LAPACK's order, no copy
        return np.asarray(product)


class FrechetReference:
    """One Gaussian with its factor computed once, for distances to many others.

    ``rank`` bounds the rank of ``cov`` where it is known (n - 1 for the covariance of n vectors).
    """

    def __init__(self, mean: npt.ArrayLike, cov: npt.ArrayLike, *, rank: int | None = None) -> None:
        self.mean, self.cov = _checked(mean, cov)
        self.dim = int(self.mean.shape[0])
        self._trace = float(np.trace(self.cov))
        self._norm = float(np.linalg.norm(self.cov))
        with one_blas_thread:
            self._factor = _factor(self.cov, rank)

    @property
    def factor(self) -> Array:
        """(d, r) matrix A with A A^T the covariance."""
        return self._factor.matrix

    @property
    def full_rank(self) -> bool:
        """Whether the covariance is numerically of full rank."""
        return self._factor.full_rank

    def distance(
        self,
        mean: npt.ArrayLike,
        cov: npt.ArrayLike,
        *,
        rank: int | None = None,
        tolerance: float = _TOLERANCE,
    ) -> float:
        """Squared Frechet distance to N(mean, cov); ``rank`` as for the reference.

        Where rounding may cost the eigenvalues more than ``tolerance`` of the distance, singular values
        are taken instead: exact, and three to five times slower.
        """
        mu, sigma = _checked(mean, cov)
        if mu.shape != self.mean.shape:
            raise ValueError(f"cannot compare {self.dim} features with {mu.shape[0]}: use one feature space")
        squared = float(np.sum((mu - self.mean) ** 2))
        traces = self._trace + float(np.trace(sigma))
        with one_blas_thread:
            cross, error = self._cross_by_eigenvalues(sigma, rank)
            value = squared + traces - 2.0 * cross
            if 2.0 * error > tolerance * max(value, 1e-3 * traces):
                value = squared + traces - 2.0 * self._cross_by_singular_values(sigma, rank)
        return max(value, 0.0)

    def distance_to(self, moments: Moments, *, tolerance: float = _TOLERANCE) -> float:
        """Squared Frechet distance to the Gaussian with these moments (unbiased covariance)."""
        return self.distance(moments.mean, moments.cov, rank=moments.n - 1, tolerance=tolerance)

    def _cross_by_eigenvalues(self, cov: Array, rank: int | None) -> tuple[float, float]:
        """tr (S1 S2)^(1/2) and a cautious estimate of its rounding error.

        An eigenvalue is off by eps times the norms of what was multiplied, its root by that / (2 root).
        """
        product = self._factor.congruence(cov)
        # SciPy's LAPACK made the product: torch's would bring threads of its own, which wait for these.
        values = eigh(product, eigvals_only=True, driver="ev", overwrite_a=True, check_finite=False)
        norms = self._norm * float(np.linalg.norm(cov))
        if values.size and values[0] < -_NEGATIVE * norms:
            _factor(cov, None)  # it says which eigenvalue is negative
        values = np.maximum(values, 0.0)
        noise = _EPS * max(4.0 * float(values.max(initial=0.0)), norms)
        if values.size == 0 or noise == 0.0:
            return 0.0, 0.0
        if rank is not None and rank < values.size:
            values = values[values.size - rank :]
        error = np.minimum(noise / (2.0 * np.sqrt(np.maximum(values, noise))), np.sqrt(noise))
        return float(np.sum(np.sqrt(values))), float(np.sqrt(np.sum(error**2)))

    def _cross_by_singular_values(self, cov: Array, rank: int | None) -> float:
        """tr (S1 S2)^(1/2) as a nuclear norm, exact to eps of its largest term."""
        product = torch.from_numpy(self._factor.matrix.T @ _factor(cov, rank).matrix)
        return float(torch.linalg.svdvals(product).sum()) if product.numel() else 0.0


def _checked(mean: npt.ArrayLike, cov: npt.ArrayLike) -> tuple[Array, Array]:
    mu: npt.NDArray[Any] = np.asarray(mean, dtype=np.float64)
    sigma: npt.NDArray[Any] = np.asarray(cov, dtype=np.float64)
    if mu.ndim != 1 or sigma.shape != (mu.shape[0], mu.shape[0]):
        raise ValueError(
            f"expected a mean (d,) and a covariance (d, d), got shapes {mu.shape} and {sigma.shape}"
        )
    if not mu.size:
        raise ValueError("a mean and a covariance of no features have no distance")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise ValueError("the mean or the covariance holds values that are not finite")
    scale = max(float(sigma.max()), -float(sigma.min()))
    if _asymmetry(sigma) > 1e-8 * scale:
        raise ValueError("the covariance is not symmetric")
    return mu, sigma


def _asymmetry(matrix: Array) -> float:
    """max |a_ij - a_ji|, in tiles: reading a large matrix down its columns misses the caches."""
    starts = range(0, len(matrix), _TILE)
    pairs = ((slice(i, i + _TILE), slice(j, j + _TILE)) for i in starts for j in starts if j <= i)
    return max(float(np.abs(matrix[a, b] - matrix[b, a].T).max()) for a, b in pairs)


def _factor(cov: Array, rank: int | None) -> _Factor:
    """Cholesky where the covariance has full rank, else the eigenvectors of its numerical range.

    Rank is judged by the condition of the correlation matrix, so that units do not matter; beyond
    1 / (d eps) the smallest eigenvalue may be rounding. Pivots alone do not show it: rounding divided
    by a small component of the null vector looks like a pivot.
    """
    dim = cov.shape[0]
    if rank is None or rank >= dim:
        lower, info = lapack.dpotrf(cov.T, lower=1, clean=1)
        if info == 0:
            scale = np.sqrt(np.diagonal(cov))
            norm = float(np.max(np.abs(cov) @ (1 / scale) / scale))
            inverse_condition, _ = lapack.dpocon(lower / scale[:, None], norm, uplo="L")
            if inverse_condition > dim * _EPS:
                return _Factor(lower, True)
    values, vectors = torch.linalg.eigh(torch.from_numpy(cov))
    largest = float(values.abs().max())
    if float(values[0]) < -_NEGATIVE * largest:
        raise ValueError(
            f"a covariance cannot have the eigenvalue {float(values[0]):.3g} (the largest is {largest:.3g})"
        )
    keep = values > dim * _EPS * largest
    if rank is not None and rank < dim:
        keep[: dim - rank] = False
    return _Factor((vectors[:, keep] * values[keep].sqrt()).numpy(), False)
