"""The feature space ``pixels``: the image itself, each value divided by 255."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from bench.errors import UsageError
from bench.hooks import hookimpl
from bench.metrics.frechet_score import FrechetMetric
from bench.metrics.metric import Metric
from bench.metrics.space import Shape, fingerprint


@dataclass(frozen=True)
class Pixels:
    """uint8 / 255 in float32, flattened: (B, C, H, W) -> (B, C H W).

    Attributes:
        shape: (C, H, W) of one image; other sizes are other spaces.
    """

    shape: Shape
    name: str = "pixels"

    @property
    def dim(self) -> int:
        """C H W."""
        return math.prod(self.shape)

    @property
    def fingerprint(self) -> str:
        """Name and hash of shape, scale and dtype."""
        return fingerprint(self.name, shape=self.shape, scale="1/255", dtype="float32")

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 images (B, C, H, W) to float32 (B, C H W) in [0, 1]."""
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.shape:
            raise UsageError(
                f"pixels expects uint8 images (B, {', '.join(map(str, self.shape))}), got {images.dtype}"
                f" {tuple(images.shape)}"
            )
        return images.flatten(1).to(torch.float32) / 255

    def to(self, device: torch.device | str) -> Pixels:
        """Return the space: it has nothing to move."""
        return self


def pixel_space(name: str, shape: Shape) -> Pixels:
    """Make the space for images of ``shape``."""
    return Pixels(shape, name)


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer ``fd_pixels``."""
    return [FrechetMetric("fd_pixels", space="pixels")]
