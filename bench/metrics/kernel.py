"""KID and CMMD: kernel distances, unbiased, with a true standard error."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from bench.errors import UsageError
from bench.hooks import hookimpl
from bench.metrics.groups import GroupedStatistics, Needs
from bench.metrics.metric import Metric, reference_flags
from bench.metrics.mmd import Kernel, KernelSums, gaussian, kernel_sums, mmd, on_sphere, polynomial
from bench.metrics.reference import Reference
from bench.stats.score import Score

_CMMD_WIDTH = 10.0


_CMMD_SCALE = 1000.0


_SUMS: weakref.WeakKeyDictionary[Reference, dict[str, KernelSums]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class KernelMetric:
    """Unbiased squared MMD between samples and reference over all pairs; values below zero are legal.

    With the kernel (x . y / d + 1)^3 this is KID (Binkowski et al. 2018, arXiv:1801.01401) without its
    random subsets, whose spread is not a standard error. With ``cmmd`` features are normalised, the kernel
    is Gaussian of width 10 and the result times 1000 (Jayasumana et al. 2024, arXiv:2401.09603).

    The score's ``se`` counts the reference as a sample too; comparisons, in which its share cancels, are made
    from the values without each group.

    Attributes:
        name: column name.
        space: name of the feature space.
        kernel: ``polynomial`` or ``cmmd``.
    """

    name: str
    space: str
    kernel: str = "polynomial"
    needs: Needs = "features"
    higher_is_better: bool = False

    def score(self, sample: GroupedStatistics, reference: Reference) -> Score:
        """Return MMD^2; ``debiased`` equals ``value``, which is unbiased.

        Raises:
            UsageError: for fewer than two samples or features that were not kept.
        """
        x, y = torch.as_tensor(sample.features), torch.as_tensor(reference.need_features(self.name))
        if len(x) < 2 or len(y) < 2:
            raise UsageError(f"{self.name} needs at least 2 samples and 2 reference images")
        found = mmd(x, y, self._kernel, sample.slices, self._sums(reference, y))
        scale = _CMMD_SCALE if self.kernel == "cmmd" else 1.0
        return Score(
            metric=self.name,
            value=scale * found.value,
            debiased=scale * found.value,
            se=scale * found.se,
            leave_one_out=tuple(scale * v for v in found.leave_one_out),
            n=len(x),
            space=reference.space,
            reference=reference.hash,
            flags=(*sample.flags, *reference_flags(self, reference)),
        )

    @property
    def _kernel(self) -> Kernel:
        return on_sphere(gaussian(_CMMD_WIDTH)) if self.kernel == "cmmd" else polynomial

    def _sums(self, reference: Reference, y: torch.Tensor) -> KernelSums:
        known = _SUMS.setdefault(reference, {})
        if self.kernel not in known:
            known[self.kernel] = kernel_sums(y, self._kernel, [slice(0, len(y))])
        return known[self.kernel]


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer KID in the Inception, digit and pixel spaces, and CMMD."""
    return [
        KernelMetric("kid", "inception_2048"),
        KernelMetric("kid_inception_768", "inception_768"),
        KernelMetric("kid_digits", "digits"),
        KernelMetric("kid_pixels", "pixels"),
        KernelMetric("cmmd_clip_l14_336", "clip_l14_336", kernel="cmmd"),
    ]
