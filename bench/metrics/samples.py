"""The distance of an exact model's samples to the law of its data: no rounding, no error of a reference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from bench.errors import UsageError
from bench.hooks import hookimpl
from bench.metrics.frechet_score import FrechetMetric
from bench.metrics.metric import Metric
from bench.metrics.reference import Reference
from bench.metrics.space import Shape, fingerprint


@dataclass(frozen=True)
class Samples:
    """The feature space ``samples``: x_0 itself, flattened, as floats and before any rounding to 256 levels.

    Attributes:
        shape: (C, H, W) of one sample.
        quantised: False: it must be given x_0, not uint8 images.
    """

    shape: Shape
    name: str = "samples"
    quantised: bool = False

    @property
    def dim(self) -> int:
        """C H W."""
        return math.prod(self.shape)

    @property
    def fingerprint(self) -> str:
        """Name and hash of the shape."""
        return fingerprint(self.name, shape=self.shape)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Flatten x_0 (B, C, H, W) of floats."""
        if not images.is_floating_point() or tuple(images.shape[1:]) != self.shape:
            raise UsageError(
                f"samples expects x_0 as floats (B, {', '.join(map(str, self.shape))}), got {images.dtype}"
                f" {tuple(images.shape)}"
            )
        return images.flatten(1)

    def to(self, device: torch.device | str) -> Samples:
        """Return the space: it has nothing to move."""
        return self


def sample_space(name: str, shape: Shape) -> Samples:
    """Make the space for samples of ``shape``."""
    return Samples(shape, name)


def law_reference(mean: npt.ArrayLike, cov: npt.ArrayLike, shape: Shape, *, name: str) -> Reference:
    """Return the law N(mean, cov) of x_0 as a reference: ``fd_law`` is then the distance to the truth itself.

    Args:
        mean: (D,) of the flattened x_0, D = C H W.
        cov: (D, D).
        shape: (C, H, W).
        name: for people.
    """
    mu, sigma = np.asarray(mean, dtype=np.float64), np.asarray(cov, dtype=np.float64)
    if mu.shape != (math.prod(shape),) or sigma.shape != (mu.size, mu.size):
        raise UsageError(f"a law of x_0 {shape} needs a mean of {math.prod(shape)} and a square covariance")
    data_hash = hashlib.sha256(mu.tobytes() + sigma.tobytes()).hexdigest()
    return Reference(name, 0, mu, sigma, data_hash, Samples(shape).fingerprint)


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer ``fd_law``."""
    return [FrechetMetric("fd_law", "samples", quantisation="none")]
