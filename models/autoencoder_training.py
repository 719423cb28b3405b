"""How the shipped autoencoder of the digits was made: ``python -m models.autoencoder_training FILE``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bench import from_uint8, load_images, to_uint8
from bench.training.checkpoint import write_safetensors
from bench.training.draws import batch_indices, initial_seed, step_generator
from models.latent import LATENT_SHAPE, DigitsAutoencoder


def train_autoencoder(
    path: Path | str,
    *,
    epochs: int = 12,
    batch: int = 256,
    learning_rate: float = 3e-3,
    beta: float = 1e-4,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> float:
    """Train the autoencoder on the shipped digits and write it; return its error on the held-out images.

    AdamW under a one-cycle learning rate; mean square error a pixel and beta times the Kullback-Leibler
    divergence of the latents from N(0, 1), a number.

    Source: Rombach et al. 2022, arXiv:2112.10752, section 3.1 and appendix G, its KL-regularised form.

    Args:
        path: the safetensors file to write.
        epochs: passes over the 40,000 images.
        batch: images a step.
        learning_rate: the cycle's highest.
        beta: the weight of the divergence.
        seed: the seed of the initial weights, the order of the images and the noise.
        report: called with a line after each epoch.
    """
    data = load_images("digits")
    x = from_uint8(data.images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(initial_seed(seed))
        network = DigitsAutoencoder()
        steps = epochs * (len(x) // batch)
        optimiser = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=1e-4)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps)
        for step in range(steps):
            generator = step_generator(seed, step)
            chosen = x[batch_indices(seed, step, batch, len(x))]
            noise = torch.randn(batch, *LATENT_SHAPE, generator=generator)
            loss = network.loss(chosen, noise, beta)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            cycle.step()
            if report is not None and (step + 1) % (len(x) // batch) == 0:
                told = f"epoch {(step + 1) * epochs // steps}/{epochs}  loss {float(loss.detach()):.5f}"
                report(f"{told}  held-out error {reconstruction_error(network):.5f}")
    with torch.no_grad():
        network.scale_factor.copy_(1 / torch.cat([network.encode(run) for run in _runs(x)]).std())
    score = reconstruction_error(network)
    metadata = {"data_hash": data.hash, "held_out_error": f"{score:.5f}", "seed": seed}
    write_safetensors(Path(path), network.state_dict(), metadata)
    return score


@torch.no_grad()
def reconstructions(network: DigitsAutoencoder, images: Tensor) -> Tensor:
    """Return uint8 images (N, 1, 12, 12) as the autoencoder gives them back."""
    runs = _runs(from_uint8(images))
    return torch.cat([to_uint8(network.decode(network.encode(run))) for run in runs])


def reconstruction_error(network: DigitsAutoencoder) -> float:
    """Return the mean square error a pixel, in [-1, 1] units, on the held-out digits."""
    images = load_images("digits-held-out").images
    return float((from_uint8(reconstructions(network, images)) - from_uint8(images)).square().mean())


def _runs(x: Tensor) -> list[Tensor]:
    return [x[start : start + 1000] for start in range(0, len(x), 1000)]


if __name__ == "__main__":
    train_autoencoder(sys.argv[1], report=print)
