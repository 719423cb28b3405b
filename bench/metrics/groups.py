"""Feature statistics by jackknife group: added in batches, saved in blocks, merged, left out in turn."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from bench.errors import UsageError
from bench.metrics.moments import Accumulator, Array, Features, Moments, pack_symmetric, unpack_symmetric

GROUPS = 20


Needs = Literal["moments", "features"]
"""What a metric is made of: moments alone, or every feature vector."""


class GroupedStatistics:
    """Moments of the features of a trial's samples, one set for each jackknife group.

    Sample i of n belongs to group ``i * groups // n``, whatever the batches and blocks it came in.
    With fewer samples than groups each sample is its own group. Only the groups that have samples take
    memory: d (d + 1) / 2 numbers of 8 bytes each.

    Args:
        n: number of samples of the whole trial, not of one block.
        dim: number of features d.
        groups: number of jackknife groups.
        keep_features: keep every feature vector as well, in float32, for metrics with ``needs="features"``.
    """

    def __init__(self, n: int, dim: int, groups: int = GROUPS, *, keep_features: bool = False) -> None:
        if n < 1 or dim < 1 or groups < 1:
            raise UsageError(f"n, dim and groups must be positive, got {n}, {dim} and {groups}")
        self.n = n
        self.dim = dim
        self.groups = min(groups, n)
        self.keep_features = keep_features
        self._seen = np.zeros(n, dtype=np.bool_)
        self._packed: dict[int, tuple[int, Array, Array]] = {}
        self._open: tuple[int, Accumulator] | None = None
        self._kept: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []

    @property
    def count(self) -> int:
        """Number of samples added so far."""
        return int(self._seen.sum())

    @property
    def present(self) -> list[int]:
        """Groups that have samples, in order."""
        self.close()
        return sorted(self._packed)

    def add(self, features: Features, indices: npt.ArrayLike | torch.Tensor) -> None:
        """Add features (B, d) of the samples with these indices (B,).

        Raises:
            ValueError: for shapes that do not fit, an index that is out of range or was added before, and
                features that are not finite; the last, of features on a GPU, by :meth:`close`.
        """
        where = np.asarray(indices.cpu() if isinstance(indices, torch.Tensor) else indices, dtype=np.int64)
        if where.shape != (features.shape[0],):
            raise ValueError(f"{features.shape[0]} feature vectors came with indices of shape {where.shape}")
        if where.size == 0:
            return
        if where.min() < 0 or where.max() >= self.n:
            raise ValueError(f"sample indices must lie in [0, {self.n}), got {where.min()}..{where.max()}")
        if self._seen[where].any() or np.unique(where).size != where.size:
            raise ValueError("a sample index was added twice; every sample counts once")
        group_of = where * self.groups // self.n
        for group in np.unique(group_of):
            rows = np.flatnonzero(group_of == group)
            # A slice spares the copy in the usual case of samples that come in order.
            contiguous = rows[-1] - rows[0] + 1 == rows.size
            part = features[rows[0] : rows[-1] + 1] if contiguous else features[rows]
            self._accumulator(int(group)).add(part)
        self._seen[where] = True
        if self.keep_features:
            kept = torch.as_tensor(features).detach().to("cpu", torch.float32, copy=True).numpy()
            self._kept.append((where, kept))

    def merge(self, other: GroupedStatistics) -> GroupedStatistics:
        """Add everything ``other`` holds; merge blocks in the order of their indices for equal last bits.

        Raises:
            ValueError: if the two are not parts of one trial or share a sample.
        """
        mine, theirs = (self.n, self.dim, self.groups), (other.n, other.dim, other.groups)
        if mine != theirs:
            raise ValueError(f"blocks of different trials: (n, d, groups) is {mine} here and {theirs} there")
        if (self._seen & other._seen).any():
            raise ValueError("a sample index is in both blocks; every sample counts once")
        if self.keep_features and not other.keep_features:
            raise ValueError("the other block kept no features; score it again with keep_features")
        self.close()
        for group in other.present:
            self._put(group, other.group(group))
        self._seen |= other._seen
        if self.keep_features:
            self._kept.extend(other._kept)
        return self

    def as_part_of(self, n: int) -> GroupedStatistics:
        """Return the statistics of the same samples as the first of a larger trial of n, in its groups.

        With f times as many samples, sample i goes from group k = floor(i G / n_here) to floor(k / f): the
        groups of the smaller trial are united, f of them at a time, and none has to be divided.

        Raises:
            ValueError: if n is no multiple of the number of samples here, or these are fewer than the groups.
        """
        times, rest = divmod(n, self.n)
        made = GroupedStatistics(n, self.dim, keep_features=self.keep_features)
        if rest or made.groups != self.groups:
            raise ValueError(f"the groups of {self.n} samples make up none of {n}: double their number")
        for group in self.present:
            made._put(group // times, self.group(group))
        made._seen[: self.n] = self._seen
        made._kept = list(self._kept)
        return made

    def group(self, group: int) -> Moments:
        """Moments of one group."""
        self.close()
        if group not in self._packed:
            return Moments.empty(self.dim)
        n, mean, triangle = self._packed[group]
        return Moments(n, mean, unpack_symmetric(triangle, self.dim))

    @property
    def total(self) -> Moments:
        """Moments of all samples, the groups added in order."""
        total = Moments.empty(self.dim)
        for group in self.present:
            total = total + self.group(group)
        return total

    def leave_out(self, group: int, total: Moments | None = None) -> Moments:
        """Moments of all samples but one group's; ``total`` spares its sum where it is at hand."""
        return (self.total if total is None else total) - self.group(group)

    @property
    def slices(self) -> list[slice]:
        """Rows of :attr:`features` that each group with samples has, in order."""
        bounds = np.searchsorted(self.indices * self.groups // self.n, np.arange(self.groups + 1))
        return [slice(int(a), int(b)) for a, b in itertools.pairwise(bounds) if b > a]

    @property
    def flags(self) -> tuple[str, ...]:
        """``incomplete`` where samples are missing."""
        return ("incomplete",) if self.count < self.n else ()

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """Indices of the samples added so far, ascending."""
        return np.flatnonzero(self._seen)

    @property
    def features(self) -> npt.NDArray[np.float32]:
        """Every feature vector (n, d), in the order of the sample indices.

        Raises:
            UsageError: if they were not kept.
        """
        if not self.keep_features:
            raise UsageError("this metric needs every feature vector; score with keep_features")
        if len(self._kept) != 1:
            order = np.concatenate([where for where, _ in self._kept] or [np.zeros(0, np.int64)])
            rows = np.concatenate([part for _, part in self._kept] or [np.zeros((0, self.dim), np.float32)])
            rank = np.argsort(order, kind="stable")
            self._kept = [(order[rank], rows[rank])]
        where, rows = self._kept[0]
        return rows if (np.diff(where) > 0).all() else rows[np.argsort(where, kind="stable")]

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything as arrays for ``numpy.savez``."""
        present = self.present
        arrays: dict[str, npt.NDArray[Any]] = {
            "shape": np.array([self.n, self.dim, self.groups], dtype=np.int64),
            "indices": self.indices,
            "present": np.array(present, dtype=np.int64),
            "counts": np.array([self._packed[g][0] for g in present], dtype=np.int64),
            "means": np.array([self._packed[g][1] for g in present]).reshape(len(present), self.dim),
            "triangles": np.array([self._packed[g][2] for g in present]).reshape(len(present), -1),
        }
        if self.keep_features:
            arrays["features"] = self.features
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> GroupedStatistics:
        """Return what :meth:`to_arrays` wrote, to the last bit.

        Raises:
            ValueError: if the arrays do not fit together.
        """
        n, dim, groups = (int(v) for v in arrays["shape"])
        made = cls(n, dim, groups, keep_features="features" in arrays)
        indices = np.asarray(arrays["indices"], dtype=np.int64)
        counts = np.asarray(arrays["counts"], dtype=np.int64)
        if int(counts.sum()) != indices.size:
            raise ValueError(f"the saved block is damaged: {indices.size} indices for {counts.sum()} samples")
        if indices.size and not 0 <= indices[0] <= indices[-1] < n:
            raise ValueError(f"the saved block is damaged: its indices do not lie in [0, {n})")
        made._seen[indices] = True
        for place, group in enumerate(arrays["present"]):
            mean = np.asarray(arrays["means"][place], dtype=np.float64)
            triangle = np.asarray(arrays["triangles"][place], dtype=np.float64)
            if mean.shape != (dim,) or triangle.shape != (dim * (dim + 1) // 2,):
                raise ValueError(f"the saved block is damaged: group {int(group)} is not of {dim} features")
            made._packed[int(group)] = (int(counts[place]), mean, triangle)
        if made.keep_features:
            kept = np.asarray(arrays["features"], dtype=np.float32)
            if kept.shape != (indices.size, dim):
                raise ValueError(f"the saved block is damaged: features of shape {kept.shape}")
            made._kept = [(indices, kept)]
        return made

    def _accumulator(self, group: int) -> Accumulator:
        if self._open is None or self._open[0] != group:
            self.close()
            self._open = (group, Accumulator(self.dim))
        return self._open[1]

    def close(self) -> GroupedStatistics:
        """Bring the sums of the group being filled from their device, packed, and return these statistics.

        Everything that reads them does it. What still lies on a GPU should not leave its process.

        Raises:
            ValueError: if features that came on a GPU were not finite.
        """
        if self._open is not None:
            group, accumulator = self._open
            self._open = None
            self._put(group, accumulator.moments())
        return self

    def _put(self, group: int, moments: Moments) -> None:
        if moments.n == 0:
            return
        if group in self._packed:
            moments = self.group(group) + moments
        self._packed[group] = (moments.n, moments.mean, pack_symmetric(moments.scatter))
