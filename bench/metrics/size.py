"""The size of a sample's values: of a sampler that gives an error, how large the error is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from bench.errors import UsageError
from bench.hooks import hookimpl
from bench.metrics.groups import GroupedStatistics, Needs
from bench.metrics.metric import Metric, score_without_reference
from bench.metrics.reference import Reference
from bench.metrics.space import Shape, fingerprint
from bench.stats.score import Score


class Size:
    """x_0 (B, C, H, W) of floats -> (B, 1): the root mean square of each, before any rounding.

    Attributes:
        quantised: False: it must be given x_0, not uint8 images.
    """

    name = "size"
    dim = 1
    quantised = False

    def __init__(self, shape: Shape) -> None:
        self.fingerprint = fingerprint(self.name, shape=shape)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the root mean square of every sample.

        Raises:
            UsageError: for uint8 images.
        """
        if not images.is_floating_point():
            raise UsageError(f"size takes x_0 as floats, got {images.dtype}")
        return images.flatten(1).square().mean(1, keepdim=True).sqrt()

    def to(self, device: object) -> Size:
        """Return the space: it has nothing to move."""
        return self


def size_space(name: str, shape: Shape) -> Size:
    """Make the space for samples of ``shape``."""
    return Size(shape)


@dataclass(frozen=True)
class RootMeanSquare:
    """Mean over the samples of their root mean square, (1/D sum x_0^2)^(1/2).

    Of ``ddim-inversion:gives=error`` it is the error of the round trip. No reference enters.

    Attributes:
        name: column name.
        space: name of the feature space.
    """

    name: str = "rms_x0"
    space: str = "size"
    needs: Needs = "moments"
    higher_is_better: bool = False
    uses_reference: bool = False

    def score(self, sample: GroupedStatistics, reference: Reference) -> Score:
        """Return the mean with its jackknife error; UsageError for no samples."""
        return score_without_reference(self, sample, reference, lambda moments: float(moments.mean[0]))


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer ``rms_x0``."""
    return [RootMeanSquare()]
