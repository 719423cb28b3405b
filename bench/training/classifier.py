"""How the classifier behind the feature space ``digits`` was made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from bench.data.images import from_uint8
from bench.data.sets import load_images
from bench.errors import UsageError
from bench.metrics.digits import DigitsClassifier
from bench.training.checkpoint import write_safetensors
from bench.training.draws import batch_indices, initial_seed, step_generator


def train_digits_classifier(
    path: Path | str,
    *,
    epochs: int = 12,
    batch: int = 256,
    learning_rate: float = 3e-3,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> float:
    """Train the classifier on the shipped digits, write it to ``path`` and return its held-out accuracy.

    AdamW under a one-cycle learning rate, cross-entropy with labels smoothed by 0.05, dropout 0.3, each batch
    moved by at most one pixel in each direction.

    Args:
        path: the safetensors file to write.
        epochs: passes over the 40,000 images.
        batch: images a step.
        learning_rate: the cycle's highest.
        seed: the seed of the initial weights, the order of the images, dropout and moves.
        report: called with a line after each epoch.
    """
    data = load_images("digits")
    if data.labels is None:
        raise UsageError("a classifier is trained on images with labels")
    x, labels = from_uint8(data.images), data.labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(initial_seed(seed))
        network = DigitsClassifier()
        per_epoch = len(x) // batch
        optimiser = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=0.02)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=epochs * per_epoch)
        for step in range(epochs * per_epoch):
            generator = step_generator(seed, step)
            index = batch_indices(seed, step, batch, len(x))
            down, right = torch.randint(-1, 2, (2,), generator=generator).tolist()
            moved = torch.roll(x[index], (down, right), (2, 3))
            loss = functional.cross_entropy(network.train()(moved), labels[index], label_smoothing=0.05)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            cycle.step()
            if report is not None and (step + 1) % per_epoch == 0:
                report(f"epoch {(step + 1) // per_epoch}/{epochs}  held-out accuracy {accuracy(network):.4f}")
    score = accuracy(network)
    metadata = {"data_hash": data.hash, "held_out_accuracy": f"{score:.4f}", "seed": seed}
    write_safetensors(Path(path), network.state_dict(), metadata)
    return score


@torch.no_grad()
def accuracy(network: DigitsClassifier) -> float:
    """Return the share of the held-out digits that ``network`` names rightly."""
    held_out = load_images("digits-held-out")
    network.eval()
    if held_out.labels is None:
        raise UsageError("accuracy is measured on images with labels")
    parts = [held_out.images[i : i + 500] for i in range(0, len(held_out), 500)]
    named = [network(from_uint8(part)).argmax(1) for part in parts]
    right: Tensor = torch.cat(named) == held_out.labels
    return float(right.float().mean())
