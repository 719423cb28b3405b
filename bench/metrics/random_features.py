"""The feature space ``random``: convolutions whose weights are noise, for any number of channels."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.diffusion.noise import normal_noise
from bench.hooks import hookimpl
from bench.metrics.frechet_score import FrechetMetric
from bench.metrics.metric import Metric
from bench.metrics.network_features import NetworkFeatures, for_shape
from bench.metrics.space import FeatureSpace, Shape

DIM = 128
SIDE = 32
SEED = 0

_WIDTHS = (32, 64, DIM)


class RandomConvolutions(nn.Module):
    """Three 3 x 3 convolutions with SiLU, the later two halving the size, averaged over places.

    Weights are normal with variance 2 / (9 C_in) (He et al. 2015, arXiv:1502.01852), biases normal with
    variance 1/4, both by :func:`bench.diffusion.noise.normal_noise`: the same numbers on every platform.

    Args:
        channels: C of the images (B, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for layer, (given, made) in enumerate(zip((channels, *_WIDTHS[:-1]), _WIDTHS, strict=True)):
            weight = normal_noise(SEED, [0], layer, (made, given, 3, 3))[0] * math.sqrt(2 / (9 * given))
            self.weights.append(nn.Parameter(weight.contiguous(memory_format=torch.channels_last)))
            self.biases.append(nn.Parameter(normal_noise(SEED, [1], layer, (made,))[0] / 2))

    def forward(self, x: Tensor) -> Tensor:
        """Map images in [-1, 1] to features (B, 128)."""
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = functional.silu(functional.conv2d(x, weight, bias, stride=1 if layer == 0 else 2, padding=1))
        return x.mean((2, 3))


def random_space(name: str, shape: Shape) -> FeatureSpace:
    """Make the space for images of ``shape``; all but 32 x 32 pixels are resized."""
    inner = (shape[0], SIDE, SIDE)
    network = RandomConvolutions(shape[0])
    space = NetworkFeatures(
        name, inner, DIM, network, network, weights=f"noise of seed {SEED}", widths=_WIDTHS, layer="mean"
    )
    return for_shape(space, inner, shape)


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer ``fd_random``."""
    return [FrechetMetric("fd_random", space="random")]
