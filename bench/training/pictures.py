"""What a run shows of itself as it goes: the curves of its losses, and samples from the averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from bench.data.images import to_uint8
from bench.diffusion.grid import make_grid
from bench.diffusion.interfaces import Prediction, Variance
from bench.diffusion.noise import TrajectoryNoise
from bench.diffusion.sampling import get_sampler, sample
from bench.diffusion.schedule import NoiseSchedule
from bench.drawing.curves import training_curves
from bench.drawing.figures import rendered
from bench.drawing.pictures import save_picture
from bench.files.atomic import write_atomically

SAMPLER, STEPS = "ddim", 50
SEED = 0
"""The seed of the noise that every grid starts from: between two grids only the weights differ."""

_SIDE = 64  # least side of an enlarged image in pixels
_GAP = 2


class Averaged:
    """A network as the samplers see it, its variance left out: an :class:`bench.EpsilonModel`."""

    def __init__(
        self, network: nn.Module, schedule: NoiseSchedule, shape: tuple[int, int, int], rescale: bool
    ) -> None:
        self.network, self.schedule, self.shape = network, schedule, shape
        self.variance: Variance = "fixed"
        self._rescale = rescale

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict the noise in x (B, C, H, W) at time steps t (B,)."""
        times = t * (1000.0 / self.schedule.T) if self._rescale else t
        return Prediction(self.network(x, times)[:, : self.shape[0]].float())


@torch.no_grad()
def draw_samples(
    model: Averaged,
    count: int,
    device: torch.device,
    decode: Callable[[Tensor], Tensor] = lambda x0: x0,
) -> Tensor:
    """Return ``count`` uint8 images by DDIM (eta = 0) in 50 steps, or T where that is less.

    Args:
        model: the averaged network.
        count: how many.
        device: where they are drawn.
        decode: x_0 (B, c, h, w) -> images in [-1, 1], (B, C, H, W), where the model's x_0 are latents.
    """
    noise = TrajectoryNoise(SEED, range(count), model.shape, device)
    grid = make_grid(model.schedule, min(STEPS, model.schedule.T), "linspace")
    return to_uint8(decode(sample(model, get_sampler(SAMPLER), grid, noise.initial(), noise))).cpu()


def save_samples(path: Path, images: Tensor) -> None:
    """Write uint8 images (N, C, H, W) as a PNG grid, small ones with every pixel repeated."""
    count, channels, height, width = images.shape
    scale = max(1, _SIDE // max(height, width))
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    high, wide = height * scale + _GAP, width * scale + _GAP
    sheet = torch.full((channels, rows * high + _GAP, columns * wide + _GAP), 255, dtype=torch.uint8)
    for place, image in enumerate(images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)):
        top, left = _GAP + place // columns * high, _GAP + place % columns * wide
        sheet[:, top : top + height * scale, left : left + width * scale] = image
    pixels = sheet.permute(1, 2, 0).numpy()
    save_picture(Image.fromarray(pixels[..., 0] if channels == 1 else pixels), path)


def plot_losses(path: Path, table: Mapping[str, Sequence[float]], name: str) -> None:
    """Write the `training_curves` of a metrics table as PNG."""
    write_atomically(path, rendered(training_curves(table, name), "png"))
