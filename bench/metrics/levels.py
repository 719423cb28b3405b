"""How the values of images are spread, and the flags that tell of images in a wrong range.

A score says how far images are from others, not why. Where most of the distance is a wrong scale (latents
taken for images, a decoder left out, a model of images in [0, 1]) it says nothing of the sampler.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FAR_OUTSIDE = 1.2
"""A value further from 0 is far outside [-1, 1]: images with a flat white or black ground end in [-1, 1] only
up to the sampler's own error, which no score sees once they are rounded."""

MOST_OUTSIDE = 0.05
"""Share of values far outside above which rounding has cut off what the sampler drew."""

MEAN_APART = 0.3
"""Distance of two means, in standard deviations of the reference: the shipped models stay below 0.12, a shift
by an eighth of the range is 0.4 and more."""

LEAST_SPREAD, MOST_SPREAD = 0.7, 1.4
"""Standard deviation of the samples' values as a part of the reference's: half contrast is 0.5."""


_BATCH = 1000  # images at a time: their values are widened to 32 bits


@dataclass(frozen=True)
class Levels:
    """Sums over the values of some images; whole numbers, so that they add up alike in any order.

    Attributes:
        count: number of values.
        outside: how many were further than `FAR_OUTSIDE` from 0 before they were rounded.
        total: sum of the 8-bit levels 0 .. 255.
        squares: sum of their squares.
    """

    count: int = 0
    outside: int = 0
    total: int = 0
    squares: int = 0

    @classmethod
    def of(cls, images: Tensor, x0: Tensor | None = None) -> Levels:
        """Return the sums of uint8 images (B, C, H, W), and of what they were rounded from."""
        runs = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
        counts = torch.stack([torch.bincount(run.flatten().int(), minlength=256) for run in runs]).sum(0)
        levels = torch.arange(256, device=images.device)
        outside = 0 if x0 is None else int((x0.abs() > FAR_OUTSIDE).sum())
        total, squares = int((counts * levels).sum()), int((counts * levels.square()).sum())
        return cls(images.numel(), outside, total, squares)

    def __add__(self, other: Levels) -> Levels:
        return Levels(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def mean(self) -> float:
        """Mean of the values, in [-1, 1]."""
        return self.total / self.count / 127.5 - 1

    @property
    def sd(self) -> float:
        """Standard deviation of the values, in the same units."""
        level = self.total / self.count
        return math.sqrt(max(0.0, self.squares / self.count - level**2)) / 127.5

    @property
    def share_outside(self) -> float:
        """Share of the values far outside [-1, 1]."""
        return self.outside / self.count

    def flags(self, reference: Levels | None) -> tuple[str, ...]:
        """Return ``saturated`` and ``range`` where they hold.

        Args:
            reference: the sums of the reference's images; None where only their statistics are known.
        """
        saturated = self.share_outside > MOST_OUTSIDE
        return (*(["saturated"] if saturated else []), *(["range"] if self._is_far(reference) else []))

    def _is_far(self, reference: Levels | None) -> bool:
        if reference is None or reference.sd == 0:
            return False
        apart = abs(self.mean - reference.mean) / reference.sd
        return apart > MEAN_APART or not LEAST_SPREAD <= self.sd / reference.sd <= MOST_SPREAD

    def to_array(self) -> NDArray[np.int64]:
        """Return the four sums."""
        return np.array(astuple(self), dtype=np.int64)

    @classmethod
    def from_array(cls, array: NDArray[np.int64]) -> Levels:
        """Return what `to_array` gave.

        Raises:
            ValueError: if these are not four numbers.
        """
        count, outside, total, squares = (int(value) for value in array)
        return cls(count, outside, total, squares)
