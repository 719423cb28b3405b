"""A latent diffusion on 12 x 12 digits: a small autoencoder, and a residual perceptron in its latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from bench import EpsilonModel, ModelCard, NoiseSchedule, decoded, hookimpl
from bench.files.assets import read_asset
from models.digits import DigitsNetwork, asset, network_around, read_digits, read_weights
from models.errors import CheckpointError

LATENT_SHAPE = (4, 3, 3)
NETWORK = "models.digits_latent:make_latent_network"
WEIGHTS_FILE, TRAINING_FILE = "digits-latent.safetensors", "digits-latent-training.csv"
WEIGHTS_SHA256 = "8f99de85a7c3e19b60445acf5c0a35daf8b7c2f48a80273f5efcb9e1a60c65ee"
AUTOENCODER_FILE = "digits-autoencoder.safetensors"
AUTOENCODER_SHA256 = "1cd9a726bd2fbcde36a3f003d4d5abb8332b644bf71d80dff5de00aaa09c920c"


class DigitsAutoencoder(nn.Module):
    """A convolutional autoencoder between images (B, 1, 12, 12) in [-1, 1] and latents (B, 4, 3, 3).

    The encoder gives q(z | x) = N(mean, variance). A diffusion sees latents of unit variance:

        z = scale_factor mean(x),    x = D(z / scale_factor).

    Source: Rombach et al. 2022, arXiv:2112.10752, section 3.1 and appendix G.

    Args:
        width: channels at 3 x 3; half of them at 6 x 6.

    Attributes:
        scale_factor: 1 / (standard deviation of the training images' means), a buffer.
    """

    scale_factor: Tensor

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        channels = LATENT_SHAPE[0]
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width // 2, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width // 2, width, 4, stride=2, padding=1),
            _Residual(width),
            nn.SiLU(),
            nn.Conv2d(width, 2 * channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            _Residual(width),
            nn.SiLU(),
            nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(width // 2, 1, 4, stride=2, padding=1),
        )
        self.register_buffer("scale_factor", torch.ones(()))

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the logarithm of the variance of q(z | x), (B, 4, 3, 3) each, unscaled."""
        mean, log_variance = self.encoder(images).chunk(2, 1)
        return mean, log_variance.clamp(-20, 5)

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents (B, 4, 3, 3) of images (B, 1, 12, 12) in [-1, 1]."""
        return self.posterior(images)[0] * self.scale_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images (B, 1, 12, 12) in [-1, 1] of latents (B, 4, 3, 3)."""
        images: Tensor = self.decoder(latents / self.scale_factor)
        return images.clamp(-1, 1)


class _Residual(nn.Module):
    """x + conv(silu(conv(silu(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features shaped like x (B, C, H, W)."""
        h: Tensor = self.second(functional.silu(self.first(functional.silu(x))))
        return x + h


def load_autoencoder(path: Path | str | None = None) -> DigitsAutoencoder:
    """Return the shipped autoencoder, or one that ``train digits-autoencoder`` made.

    Args:
        path: a weight file; None for the shipped one, whose SHA-256 is verified first.

    Raises:
        UsageError: if the file is missing, truncated, damaged or of another network.
    """
    data = read_asset(AUTOENCODER_FILE, AUTOENCODER_SHA256) if path is None else read_weights(path)
    network = DigitsAutoencoder()
    try:
        network.load_state_dict(load(data))
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{path or AUTOENCODER_FILE} is truncated or holds no autoencoder of digits"
            f" ({str(error).splitlines()[0]}); train it again or install the package again"
        ) from None
    return network.eval().requires_grad_(False)


def make_latent_network(
    latents: Tensor, schedule: NoiseSchedule, learned_range: bool, **options: Any
) -> DigitsNetwork:
    """Return an untrained network for latents (N, c, h, w), with their mean and principal directions."""
    return network_around(latents, schedule, learned_range, **options)


def load_digits_latent(path: Path | str | None = None) -> EpsilonModel:
    """Return the shipped latent model, or one that ``train digits-latent`` made, with its autoencoder.

    Args:
        path: a weight file of the network in latents; None for the shipped one.

    Raises:
        UsageError: if a file is missing, truncated, damaged or of another network.
    """
    data = read_asset(WEIGHTS_FILE, WEIGHTS_SHA256) if path is None else read_weights(path)
    model = read_digits(data, str(path or WEIGHTS_FILE), NETWORK, LATENT_SHAPE)
    autoencoder = load_autoencoder()
    return decoded(model, autoencoder.decode, autoencoder.encode)


@hookimpl
def bench_models() -> Sequence[ModelCard]:
    """Register it."""
    return [
        ModelCard(
            "digits-latent",
            load_digits_latent,
            "shipped: a diffusion in the latents (4, 3, 3) of an autoencoder of digits, learned variance",
            data="digits",
            held_out="digits-held-out",
            metrics=("fd_digits", "fd_pixels"),
            training=asset(TRAINING_FILE),
        )
    ]
