"""First and second moments of features: exact, mergeable, float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]
Features = npt.NDArray[Any] | torch.Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and scatter of a set of feature vectors.

    ``mean`` is (d,), ``scatter`` is the (d, d) sum of centred outer products
    ``sum_i (x_i - mean)(x_i - mean)^T``. Both are float64.
    """

    n: int
    mean: Array
    scatter: Array

    @classmethod
    def of(cls, features: Features) -> Moments:
        """Moments of the rows of ``features`` (n, d).

        Raises ValueError for an array that is not a matrix or holds values that are not finite.
        """
        accumulator = Accumulator(_dim(features))
        accumulator.add(features)
        return accumulator.moments()

    @classmethod
    def empty(cls, dim: int) -> Moments:
        """Moments of no vectors at all, the neutral element of ``+``."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    @property
    def dim(self) -> int:
        """Number of features d."""
        return int(self.mean.shape[0])

    @property
    def cov(self) -> Array:
        """Unbiased covariance ``scatter / (n - 1)``; ValueError for fewer than two vectors."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 vectors, these moments hold {self.n}")
        return self.scatter / (self.n - 1)

    def __add__(self, other: Moments) -> Moments:
        """Moments of both sets together (Chan, Golub & LeVeque 1979, eq. 2.1, for matrices)."""
        self._check_same_dim(other)
        n = self.n + other.n
        if other.n == 0 or self.n == 0:
            return self if other.n == 0 else other
        delta = other.mean - self.mean
        scatter = np.outer(delta, delta)
        scatter *= self.n * other.n / n
        scatter += self.scatter
        scatter += other.scatter
        return Moments(n, self.mean + delta * (other.n / n), scatter)

    def __sub__(self, other: Moments) -> Moments:
        """Moments of what is left of ``self`` without its subset ``other``: the inverse of ``+``."""
        self._check_same_dim(other)
        n = self.n - other.n
        if n < 0:
            raise ValueError(f"cannot leave {other.n} vectors out of {self.n}")
        if other.n == 0:
            return self
        if n == 0:
            return Moments.empty(self.dim)
        mean = self.mean + (self.mean - other.mean) * (other.n / n)
        delta = other.mean - mean
        scatter = np.outer(delta, delta)
        scatter *= -(n * other.n / self.n)
        scatter += self.scatter
        scatter -= other.scatter
        return Moments(n, mean, scatter)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The moments as arrays for ``numpy.savez``; the symmetric scatter as its upper triangle."""
        return {"n": np.array(self.n), "mean": self.mean, "triangle": pack_symmetric(self.scatter)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Moments:
        """The inverse of :meth:`to_arrays`, to the last bit."""
        mean = np.asarray(arrays["mean"], dtype=np.float64)
        triangle = np.asarray(arrays["triangle"], dtype=np.float64)
        return cls(int(arrays["n"]), mean, unpack_symmetric(triangle, mean.shape[0]))

    def _check_same_dim(self, other: Moments) -> None:
        if self.dim != other.dim:
            raise ValueError(f"moments of {self.dim} and of {other.dim} features cannot be combined")


class Accumulator:
    """Streams batches of features into :class:`Moments`.

    Sums are kept about a fixed shift, the mean of the first batch, so that a mean far larger than
    the spread costs no digits; they live on the device of the features, in float64 (on the CPU where the
    device has no float64). A GPU is not waited for before the moments are asked for.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.n = 0
        self._shift: torch.Tensor | None = None

    def add(self, features: Features) -> None:
        """Add the rows of ``features`` (B, d).

        Raises:
            ValueError: for a wrong shape, or values that are not finite; of features on a GPU the second is
                raised by :meth:`moments`.
        """
        if _dim(features) != self.dim:
            raise ValueError(f"expected features of shape (B, {self.dim}), got {tuple(features.shape)}")
        x = torch.as_tensor(features).detach()
        x = (x.cpu() if x.device.type == "mps" else x).to(torch.float64)
        if x.shape[0] == 0:
            return
        bad = (~torch.isfinite(x).all(dim=1)).sum()
        if x.device.type == "cpu":
            _refuse(int(bad), int(x.shape[0]))
        if self._shift is None:
            self._shift = x.mean(dim=0)
            self._bad = torch.zeros_like(bad)
            self._sum = torch.zeros_like(self._shift)
            self._raw = x.new_zeros(self.dim, self.dim)
        self._bad += bad
        centred = x - self._shift
        self._sum += centred.sum(dim=0)
        self._raw.addmm_(centred.T, centred)
        self.n += int(x.shape[0])

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The sums as arrays for ``numpy.savez``, for a measurement that is to go on later."""
        if self._shift is None:
            return {"n": np.array(0)}
        sums = {"shift": self._shift, "sum": self._sum, "raw": self._raw, "bad": self._bad}
        return {"n": np.array(self.n), **{name: value.cpu().numpy() for name, value in sums.items()}}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.NDArray[Any]], dim: int, device: torch.device | str = "cpu"
    ) -> Accumulator:
        """The inverse of :meth:`to_arrays`, to the last bit; ValueError for sums of another dimension.

        ``device`` is that of the features to come.
        """
        made = cls(dim)
        made.n = int(arrays["n"])
        if made.n:
            if arrays["shift"].shape != (dim,) or arrays["raw"].shape != (dim, dim):
                raise ValueError(f"the kept sums are not those of {dim} features")
            where = "cpu" if torch.device(device).type == "mps" else device
            made._shift, made._sum, made._raw, made._bad = (
                torch.from_numpy(np.array(arrays[name])).to(where) for name in ("shift", "sum", "raw", "bad")
            )
        return made

    def moments(self) -> Moments:
        """Moments of everything added so far."""
        if self._shift is None:
            return Moments.empty(self.dim)
        _refuse(int(self._bad), self.n)
        offset = self._sum / self.n
        mean = (self._shift + offset).cpu().numpy()
        scatter = mirror_upper(torch.addr(self._raw, offset, offset, alpha=-self.n))
        return Moments(self.n, mean, scatter.cpu().numpy())


def mirror_upper(matrix: torch.Tensor) -> torch.Tensor:
    """The symmetric matrix with the upper triangle of ``matrix`` (matrix products round the two apart)."""
    return matrix.triu() + matrix.triu(1).T


def _refuse(bad: int, n: int) -> None:
    if bad:
        raise ValueError(f"{bad} of {n} feature vectors hold values that are not finite")


def pack_symmetric(matrix: Array) -> Array:
    """Upper triangle of a symmetric (d, d) matrix as d(d+1)/2 numbers, row by row."""
    return np.concatenate([matrix[i, i:] for i in range(matrix.shape[0])]) if matrix.size else np.zeros(0)


def unpack_symmetric(triangle: Array, dim: int) -> Array:
    """The inverse of :func:`pack_symmetric`."""
    if triangle.shape != (dim * (dim + 1) // 2,):
        raise ValueError(f"{triangle.shape[0]} numbers are no triangle of a {dim} x {dim} matrix")
    matrix = np.empty((dim, dim))
    start = 0
    for i in range(dim):
        row = triangle[start : start + dim - i]
        matrix[i, i:] = row
        matrix[i:, i] = row
        start += dim - i
    return matrix


def _dim(features: Features) -> int:
    if features.ndim != 2:
        raise ValueError(f"features must be a matrix (n, d), got shape {tuple(features.shape)}")
    return int(features.shape[1])
