"""The feature spaces ``pixels``, the image itself, and ``pooled``, its means over a coarse grid."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import adaptive_avg_pool2d

from bench.errors import UsageError
from bench.hooks import hookimpl
from bench.metrics.frechet_score import FrechetMetric
from bench.metrics.metric import Metric
from bench.metrics.network_features import check_images
from bench.metrics.space import Shape, fingerprint

MOST_POOLED = 192


@dataclass(frozen=True)
class Pixels:
    """uint8 / 255 in float32, flattened: (B, C, H, W) -> (B, C H W).

    Attributes:
        shape: (C, H, W) of one image; other sizes are other spaces.
    """

    shape: Shape
    name: str = "pixels"
    most_moments: ClassVar[int] = 1024
    """The most pixels whose covariance is offered, 32 x 32 gray ones: more take longer to score than to draw,
    and `fd_pooled` tells the same."""

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


@dataclass(frozen=True)
class PooledPixels:
    """uint8 / 255 in float32, averaged over a grid of s x s cells: (B, C, H, W) -> (B, C s s), at most 192.

    s is the largest for which C s^2 <= 192, H and W at most: small images are not pooled. Cell i of a side of
    H pixels covers the pixels floor(i H / s) to ceil((i + 1) H / s) - 1.

    Attributes:
        shape: (C, H, W) of one image; other sizes are other spaces.
    """

    shape: Shape
    name: str = "pooled"

    @property
    def grid(self) -> tuple[int, int]:
        """Cells down and across."""
        channels, height, width = self.shape
        side = max(1, math.isqrt(MOST_POOLED // channels))
        return min(side, height), min(side, width)

    @property
    def dim(self) -> int:
        """C times the number of cells."""
        return self.shape[0] * math.prod(self.grid)

    @property
    def fingerprint(self) -> str:
        """Name and hash of shape, grid, scale and dtype."""
        return fingerprint(self.name, shape=self.shape, grid=self.grid, scale="1/255", dtype="float32")

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 images (B, C, H, W) to float32 (B, d) in [0, 1]."""
        check_images(self.name, self.shape, images)
        return adaptive_avg_pool2d(images.to(torch.float32), self.grid).flatten(1) / 255

    def to(self, device: torch.device | str) -> PooledPixels:
        """Return the space: it has nothing to move."""
        return self


def pooled_space(name: str, shape: Shape) -> PooledPixels:
    """Make the space of pooled pixels for images of ``shape``."""
    return PooledPixels(shape, name)


def pixel_space(name: str, shape: Shape) -> Pixels:
    """Make the space for images of ``shape``."""
    return Pixels(shape, name)


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer ``fd_pixels`` and ``fd_pooled``."""
    return [FrechetMetric("fd_pixels", space="pixels"), FrechetMetric("fd_pooled", space="pooled")]
