"""How an autoencoder is made whose latents a diffusion is trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.data.images import from_uint8
from bench.data.sets import load_images
from bench.errors import UsageError
from bench.training.checkpoint import write_safetensors
from bench.training.config import TrainConfig
from bench.training.draws import batch_indices, initial_seed, step_generator
from bench.training.setup import found

DIGITS_AUTOENCODER = "models.digits_latent:DigitsAutoencoder"

_AT_ONCE = 500  # images that go through the network together: the work fits the caches


@runtime_checkable
class Encodes(Protocol):
    """A trained autoencoder as the diffusion in its latents sees it."""

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents (B, c, h, w) of images (B, C, H, W) in [-1, 1]."""

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images (B, C, H, W) in [-1, 1] of latents (B, c, h, w)."""

    def to(self, device: torch.device) -> object:
        """Put it on a device."""


def make_autoencoder(config: TrainConfig) -> Encodes | None:
    """Return the autoencoder in whose latents ``config`` trains, None where it trains on the images.

    Raises:
        UsageError: if what it names makes none.
    """
    if config.autoencoder is None:
        return None
    network = found(config.autoencoder)()
    if not isinstance(network, nn.Module) or not isinstance(network, Encodes):
        raise UsageError(
            f"autoencoder {config.autoencoder!r} makes no nn.Module with encode(images) and decode(latents)"
        )
    return network.eval().requires_grad_(False)


class Losses(NamedTuple):
    """Means over images of what an autoencoder is trained on.

    Attributes:
        error: mean square error of a pixel, of images in [-1, 1].
        kl: KL(q(z | x) || N(0, I)) in nats a pixel.
    """

    error: Tensor
    kl: Tensor


def autoencoder_losses(
    decoder: Callable[[Tensor], Tensor], x: Tensor, mean: Tensor, log_variance: Tensor, noise: Tensor
) -> Losses:
    """Return the losses of images whose latents are drawn from q(z | x) = N(mean, variance).

    Args:
        decoder: latents (B, c, h, w) -> images (B, C, H, W).
        x: images in [-1, 1], (B, C, H, W).
        mean: the mean of q, (B, c, h, w).
        log_variance: the logarithm of its variance, shaped like the mean.
        noise: standard normal, shaped like the mean.

    Source: Kingma & Welling 2014, arXiv:1312.6114, appendix B.
    """
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum() / x.numel()
    return Losses(functional.mse_loss(decoder(mean + (0.5 * log_variance).exp() * noise), x), kl)


def train_digits_autoencoder(
    path: Path | str,
    *,
    epochs: int = 30,
    batch: int = 256,
    learning_rate: float = 3e-3,
    kl_weight: float = 1e-3,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> float:
    """Train the digits' autoencoder, write it to ``path`` and return its error on the held-out digits.

    AdamW under a one-cycle learning rate on error + ``kl_weight`` KL: so light a penalty keeps the latents
    near unit variance and their decoder smooth. At the end ``scale_factor`` is set to 1 / (standard deviation
    of the training images' latents).

    Args:
        path: the safetensors file to write.
        epochs: passes over the 40,000 images.
        batch: images a step.
        learning_rate: the cycle's highest.
        kl_weight: weight of the KL term.
        seed: the seed of the initial weights, the order of the images and the noise.
        report: called with a line after each epoch.

    Source: Rombach et al. 2022, arXiv:2112.10752, section 3.1 and appendix G.
    """
    data, held_out = load_images("digits"), load_images("digits-held-out")
    x = from_uint8(data.images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(initial_seed(seed))
        network = found(DIGITS_AUTOENCODER)()
        per_epoch = len(x) // batch
        optimiser = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=1e-4)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=epochs * per_epoch)
        for step in range(epochs * per_epoch):
            index = batch_indices(seed, step, batch, len(x))
            mean, log_variance = network.posterior(x[index])
            noise = torch.randn(mean.shape, generator=step_generator(seed, step))
            losses = autoencoder_losses(network.decoder, x[index], mean, log_variance, noise)
            optimiser.zero_grad(set_to_none=True)
            (losses.error + kl_weight * losses.kl).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            cycle.step()
            if report is not None and (step + 1) % per_epoch == 0:
                error = reconstruction_error(network, held_out.images)
                done = f"epoch {(step + 1) // per_epoch}/{epochs}"
                report(f"{done}  KL {float(losses.kl.detach()):.3f} nats a pixel  held-out error {error:.5f}")
    network.scale_factor /= latents_of(network, data.images).std()
    error = reconstruction_error(network, held_out.images)
    metadata = {"data_hash": data.hash, "held_out_error": f"{error:.5f}", "seed": seed}
    write_safetensors(Path(path), network.state_dict(), metadata)
    return error


@torch.no_grad()
def latents_of(network: Encodes, images: Tensor) -> Tensor:
    """Return the latents (N, c, h, w), float32, of uint8 images (N, C, H, W)."""
    return torch.cat([network.encode(from_uint8(part)).float() for part in torch.split(images, _AT_ONCE)])


@torch.no_grad()
def reconstruction_error(network: Encodes, images: Tensor) -> float:
    """Return the mean square error of a pixel, images in [-1, 1], after uint8 images went there and back."""
    parts = [from_uint8(part) for part in torch.split(images, _AT_ONCE)]
    squares = [(network.decode(network.encode(x)) - x).square().sum() for x in parts]
    return float(torch.stack(squares).sum()) / images.numel()
