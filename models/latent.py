"""The shipped latent model: a small autoencoder of 12 x 12 digits, and a diffusion in its latents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from bench import ModelCard, NoiseSchedule, decoded, from_uint8, hookimpl
from bench.diffusion.stages import DecodedModel
from bench.files.assets import read_asset
from bench.files.tensors import metadata_of
from models.digits import DigitsModel, DigitsNetwork, make_digits_network
from models.errors import CheckpointError

AUTOENCODER_FILE = "digits-autoencoder.safetensors"
AUTOENCODER_SHA256 = "563b02e2e71dc69b4df8fe551669d21118af297845d97d8082fbb5f5527038c2"
WEIGHTS_FILE, TRAINING_FILE = "digits-latent.safetensors", "digits-latent-training.csv"
WEIGHTS_SHA256 = "6e94bfe6c2651de9cd62fd7bcd423814f09404f11ff3b9dc069aebf34810f361"
IMAGE_SHAPE, LATENT_SHAPE = (1, 12, 12), (4, 3, 3)

_ENCODED_AT_ONCE = 1000


class DigitsAutoencoder(nn.Module):
    """Images (B, 1, 12, 12) in [-1, 1] to latents (B, 4, 3, 3) and back, a quarter of the numbers.

    z = f E(x) and x = D(z / f), with f = 1 / sd of the latents of the training images, a buffer of the weight
    file as in Rombach et al. 2022, arXiv:2112.10752, section 4.3.2 and appendix G.
    """

    scale_factor: Tensor

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        channels = LATENT_SHAPE[0]
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 1, 3, padding=1),
        )
        self.register_buffer("scale_factor", torch.ones(()))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z / f | x), (B, 4, 3, 3) each."""
        mean, log_variance = self.encoder(x).chunk(2, 1)
        return mean, log_variance.clamp(-12, 4)

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents of images in [-1, 1]: f times the mean of q."""
        latents: Tensor = self.posterior(x)[0] * self.scale_factor
        return latents

    def decode(self, z: Tensor) -> Tensor:
        """Return the images of latents, near [-1, 1]."""
        images: Tensor = self.decoder(z / self.scale_factor)
        return images

    def loss(self, x: Tensor, noise: Tensor, beta: float) -> Tensor:
        """Return the mean square error a pixel plus beta KL(q || N(0, I)) a latent number."""
        mean, log_variance = self.posterior(x)
        again = self.decoder(mean + (log_variance / 2).exp() * noise)
        kl = (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2
        return functional.mse_loss(again, x) + beta * kl


class LatentDigitsNetwork(nn.Module):
    """A residual perceptron in the latents of a frozen autoencoder, both in one weight file.

    Args:
        autoencoder: frozen.
        diffusion: predicts the noise in latents.
    """

    def __init__(self, autoencoder: DigitsAutoencoder, diffusion: DigitsNetwork) -> None:
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False)
        self.diffusion = diffusion
        self.latent_shape = LATENT_SHAPE

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Map z (B, 4, 3, 3) and t (B,) to the noise in z."""
        noise: Tensor = self.diffusion(z, t)
        return noise

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents of images in [-1, 1]."""
        return self.autoencoder.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Return the images of latents."""
        return self.autoencoder.decode(z)


def load_autoencoder(path: Path | str | None = None) -> DigitsAutoencoder:
    """Return the shipped autoencoder, or one that `models.autoencoder_training` wrote.

    Raises:
        UsageError: if the file is missing, truncated, damaged or of another network.
    """
    data = read_asset(AUTOENCODER_FILE, AUTOENCODER_SHA256) if path is None else Path(path).read_bytes()
    network = DigitsAutoencoder()
    try:
        network.load_state_dict(load(data))
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{path or AUTOENCODER_FILE} holds no autoencoder of digits ({str(error).splitlines()[0]}); train"
            " it again or install the package again"
        ) from None
    return network.eval().requires_grad_(False)


def make_latent_network(
    images: Tensor,
    schedule: NoiseSchedule,
    learned_range: bool,
    autoencoder: str | None = None,
    **options: Any,
) -> LatentDigitsNetwork:
    """Return an untrained network for the latents of uint8 images (N, 1, 12, 12).

    Args:
        images: what the autoencoder was trained on: their latents' mean and principal directions are kept.
        schedule: gives alpha_bar_t.
        learned_range: whether the output holds v.
        autoencoder: its weight file; None for the shipped one.
        options: further arguments of `models.digits.DigitsNetwork`.
    """
    first = load_autoencoder(autoencoder)
    with torch.no_grad():
        runs = images.split(_ENCODED_AT_ONCE)  # type: ignore[no-untyped-call]
        latents = torch.cat([first.encode(from_uint8(run)) for run in runs])
    return LatentDigitsNetwork(first, make_digits_network(latents, schedule, learned_range, **options))


def load_latent_digits(path: Path | str | None = None) -> DecodedModel:
    """Return the shipped latent model, or one that ``train digits-latent`` made.

    Raises:
        UsageError: if the file is missing, truncated, damaged or of another network.
    """
    data = read_asset(WEIGHTS_FILE, WEIGHTS_SHA256) if path is None else Path(path).read_bytes()
    try:
        tensors = load(data)
        config = json.loads(metadata_of(data)["config"])
        schedule = NoiseSchedule.linear(int(config["timesteps"]))
        options = {k: v for k, v in config["network_options"].items() if k != "autoencoder"}
        mean, basis, spectrum = (tensors[f"diffusion.{name}"] for name in ("mean", "basis", "spectrum"))
        diffusion = DigitsNetwork(mean, basis, spectrum, schedule, LATENT_SHAPE, False, **options)
        network = LatentDigitsNetwork(DigitsAutoencoder(), diffusion)
        network.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path or WEIGHTS_FILE} is truncated or holds no latent model of digits"
            f" ({str(error).splitlines()[0]}); train it again or install the package again"
        ) from None
    model = DigitsModel(network.diffusion, schedule, hashlib.sha256(data).hexdigest())
    return decoded(model, network.autoencoder.eval().decode, network.autoencoder.encode)


@hookimpl
def bench_models() -> Sequence[ModelCard]:
    """Register it."""
    return [
        ModelCard(
            "digits-latent",
            load_latent_digits,
            "shipped: diffusion in the 4x3x3 latents of a small autoencoder of the digits",
            data="digits",
            held_out="digits-held-out",
            metrics=("fd_digits", "fd_pixels"),
            training=Path(str(resources.files("models").joinpath("assets", TRAINING_FILE))),
        )
    ]
