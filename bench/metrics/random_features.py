"""The feature space ``random``: energies of filters that are noise, for any number of channels."""

from __future__ import annotations

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
OCTAVES = 3

_FEWEST = 8  # filters an octave, whatever the channels leave
_FLOOR = 1e-4  # energy added to each: about that of a level of 255


class RandomFilters(nn.Module):
    """Means of the channels, and logarithms of the energies of random 3 x 3 filters in three octaves.

    Octave k sees the image averaged over cells of 2^k x 2^k pixels. A filter is normal noise of
    :func:`bench.diffusion.noise.normal_noise`, the same numbers on every platform, less its mean over places
    in each channel, at unit norm; its feature is log(mean over places of (w * x)^2 + 1e-4). An octave has
    (128 - C) / 3 filters, rounded down, so that all features are at most 128.

    Args:
        channels: C of the images (B, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        count = max(_FEWEST, (DIM - channels) // OCTAVES)
        self.dim = channels + OCTAVES * count
        self.filters = nn.ParameterList(_filters(count, channels, octave) for octave in range(OCTAVES))

    def forward(self, x: Tensor) -> Tensor:
        """Map images in [-1, 1] to features (B, d)."""
        found = [x.mean((2, 3))]
        for octave, filters in enumerate(self.filters):
            coarse = functional.avg_pool2d(x, 2**octave)
            energy = functional.conv2d(coarse, filters).square().mean((2, 3))
            found.append((energy + _FLOOR).log())
        return torch.cat(found, dim=1)


def _filters(count: int, channels: int, octave: int) -> nn.Parameter:
    noise = normal_noise(SEED, [octave], 0, (count, channels, 3, 3))[0]
    noise = noise - noise.mean((2, 3), keepdim=True)
    return nn.Parameter(noise / noise.flatten(1).norm(dim=1)[:, None, None, None])


def random_space(name: str, shape: Shape) -> FeatureSpace:
    """Make the space for images of ``shape``; all but 32 x 32 pixels are resized."""
    inner = (shape[0], SIDE, SIDE)
    network = RandomFilters(shape[0])
    space = NetworkFeatures(
        name, inner, network.dim, network, network, weights=f"noise of seed {SEED}", layer="log energies"
    )
    return for_shape(space, inner, shape)


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer ``fd_random``."""
    return [FrechetMetric("fd_random", space="random")]
