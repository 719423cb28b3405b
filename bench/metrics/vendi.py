"""The Vendi score: how many different images a sample holds, without a reference."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from bench.errors import UsageError
from bench.hooks import hookimpl
from bench.metrics.groups import GroupedStatistics, Needs
from bench.metrics.metric import Metric, scored
from bench.metrics.moments import Array
from bench.metrics.reference import Reference
from bench.stats.resampling import jackknife
from bench.stats.score import Score

_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Directions:
    """The sum of u u^T over feature vectors x with u = x / |x|, which is all that a cosine kernel needs.

    Attributes:
        n: number of vectors.
        gram: (d, d) sum of u u^T.
        zeros: number of vectors of length 0: each is like itself alone.
    """

    n: int
    gram: Array
    zeros: int

    @classmethod
    def of(cls, features: npt.NDArray[np.float32]) -> Directions:
        """Sum over the rows of features (n, d), some of them at a time."""
        gram, zeros = np.zeros((features.shape[1],) * 2), 0
        for start in range(0, len(features), _ROWS):
            x = torch.as_tensor(features[start : start + _ROWS]).double()
            norms = x.norm(dim=1, keepdim=True)
            u = torch.where(norms > 0, x / norms.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
            gram += (u.T @ u).numpy()
            zeros += int((norms == 0).sum())
        return cls(len(features), gram, zeros)

    def __sub__(self, other: Directions) -> Directions:
        return Directions(self.n - other.n, self.gram - other.gram, self.zeros - other.zeros)

    def vendi(self) -> float:
        """Return exp(-sum l log l) over the eigenvalues l of K / n.

        The n x n matrix K = U U^T has the eigenvalues of the d x d matrix U^T U and else zeros. They sum
        to 1; what rounding leaves below zero counts as zero.
        """
        values = np.linalg.eigvalsh(self.gram / self.n)
        values = values[values > 0]
        of_zeros = self.zeros / self.n * math.log(self.n)
        return math.exp(of_zeros - float(np.sum(values * np.log(values))))


@dataclass(frozen=True)
class VendiScore:
    """exp of the entropy of the eigenvalues of K / n, K_ij = cos(x_i, x_j): an effective number of images.

    1 where all samples are one, n where no two have anything in common, which needs d >= n; at most d
    (Friedman & Dieng 2022, arXiv:2210.02410, definition 3.1). It tells of diversity alone: noise has much.
    Higher is more diverse. It grows with n; ``debiased`` corrects the part of order 1/n. No reference
    enters: scores with different references can be compared.

    Attributes:
        name: column name.
        space: name of the feature space.
    """

    name: str
    space: str
    needs: Needs = "features"
    higher_is_better: bool = True
    uses_reference: bool = False

    def score(self, sample: GroupedStatistics, reference: Reference) -> Score:
        """Return the score with its jackknife error; UsageError where features were not kept, or no samples.

        A group is taken from the (d, d) sum of all, so that 21 eigenvalue problems of size d are its cost.
        """
        if not sample.count:
            raise UsageError(f"{self.name} needs samples")
        features, groups = sample.features, sample.slices
        total = Directions.of(features)
        left = [(total - Directions.of(features[g])).vendi() for g in (groups if len(groups) > 1 else [])]
        found = jackknife(total.vendi(), left)
        return scored(self, sample, reference, found)


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer the Vendi score in the Inception, DINOv2, digit and pixel spaces."""
    spaces = {"vendi": "inception_2048", "vendi_inception_768": "inception_768"}
    return [
        *(VendiScore(name, space) for name, space in spaces.items()),
        *(VendiScore(f"vendi_{space}", space) for space in ("dinov2_l14", "digits", "pixels")),
    ]
