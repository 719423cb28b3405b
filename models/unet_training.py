"""The U-Net for training: made from images, and written so that `models.load_checkpoint` reads it back."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bench import NoiseSchedule, UsageError, Variance
from models.config import UNetConfig
from models.families.base import Process
from models.families.native import metadata
from models.unet import UNet, best_scalar


class TrainedUNet(UNet):
    """A U-Net that knows what its weight file must say besides the weights."""

    def weight_metadata(
        self, schedule: NoiseSchedule, variance: Variance, rescale_timesteps: bool
    ) -> dict[str, str]:
        """Return the safetensors metadata with which `models.load_checkpoint` rebuilds network and diffusion.

        Args:
            schedule: what it is trained on.
            variance: ``learned_range`` where the second half of the output channels holds v, else ``fixed``.
            rescale_timesteps: whether it receives t 1000/T for the time step t.
        """
        if self.config.residual and rescale_timesteps:
            raise UsageError("residual needs the time steps themselves: give rescale_timesteps = false")
        return metadata(self.config, Process(schedule, variance, rescale_timesteps))


def make_unet(images: Tensor, schedule: NoiseSchedule, learned_range: bool, **options: Any) -> TrainedUNet:
    """Return an untrained U-Net for images of the size and channels of ``images``.

    Args:
        images: uint8 (N, C, H, W) with H = W; only the shape counts.
        schedule: tells the network what t means where ``residual`` is its T.
        learned_range: whether there are 2 C output channels, eps and v.
        options: the other fields of `models.UNetConfig`.

    Raises:
        UsageError: if an option is unknown or does not fit the others or the images.
    """
    channels, height, width = images.shape[1:]
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    try:
        config = UNetConfig(
            image_size=height,
            in_channels=channels,
            out_channels=channels * (2 if learned_range else 1),
            **given,
        )
    except (TypeError, ValueError) as error:
        raise UsageError(f"network_options do not make a U-Net: {error}") from None
    if height != width or height % config.divisor:
        raise UsageError(
            f"images of {width} x {height} do not fit a U-Net of {len(config.widths)} levels: it needs"
            f" squares whose side is a multiple of {config.divisor}; crop them or give fewer widths"
        )
    network = TrainedUNet(config)
    if config.residual:
        if config.residual != schedule.T:
            raise UsageError(f"residual={config.residual} must be the schedule's T={schedule.T}, or 0")
        network.factor, network.spread = (part.float() for part in best_scalar(schedule.alphas_cumprod))
    return network
