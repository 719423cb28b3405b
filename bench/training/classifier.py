"""How the classifiers behind the feature spaces ``digits`` and ``cifar_resnet_96`` were made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from bench.data.images import from_uint8
from bench.data.sets import ImageData, load_images
from bench.errors import UsageError
from bench.metrics.cifar_resnet import CifarResNet
from bench.metrics.digits import DigitsClassifier
from bench.training.checkpoint import write_safetensors
from bench.training.draws import batch_indices, initial_seed, step_generator

Augment = Callable[[Tensor, Generator], Tensor]
Report = Callable[[str], None]
N = TypeVar("N", bound=nn.Module)


class Course(NamedTuple):
    """How long and how fast a classifier is trained.

    Attributes:
        epochs: passes over the images.
        batch: images a step.
        learning_rate: the cycle's highest.
        weight_decay: AdamW's.
        bfloat16: whether convolutions are computed in bfloat16; the weights stay in float32.
    """

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    bfloat16: bool = False


DIGITS = Course(epochs=12, batch=256, learning_rate=3e-3, weight_decay=0.02)
CIFAR = Course(epochs=10, batch=256, learning_rate=5e-3, weight_decay=0.05, bfloat16=True)

_MARGIN = 4  # pixels by which a CIFAR-10 image is moved at most


def train_digits_classifier(
    path: Path | str, *, course: Course = DIGITS, seed: int = 0, report: Report | None = None
) -> float:
    """Train the classifier on the shipped digits, write it to ``path`` and return its held-out accuracy.

    AdamW under a one-cycle learning rate, cross-entropy with labels smoothed by 0.05, dropout 0.3, each batch
    moved by at most one pixel in each direction.

    Args:
        path: the safetensors file to write.
        course: epochs, batch, learning rate, weight decay and precision.
        seed: the seed of the initial weights, the order of the images, dropout and augmentation.
        report: called with a line after each epoch.
    """
    data, held_out = load_images("digits"), load_images("digits-held-out")
    network = _trained(DigitsClassifier, data, held_out, course, seed, moved_together, report)
    return _written(Path(path), network, network.state_dict(), data, held_out, seed)


def train_cifar_classifier(
    path: Path | str,
    *,
    course: Course = CIFAR,
    seed: int = 0,
    source: str | Path = "cifar10",
    held_out: str | Path = "cifar10-test",
    report: Report | None = None,
) -> float:
    """Train the classifier on CIFAR-10, write it to ``path`` and return its held-out accuracy.

    As the digits' one, with each image mirrored with probability 1/2 and moved by at most four pixels in each
    direction. The file holds the weights in float16, their batch normalisation folded into the convolutions;
    the accuracy is that of the file.

    Args:
        path: the safetensors file to write.
        course: epochs, batch, learning rate, weight decay and precision.
        seed: the seed of the initial weights, the order of the images, dropout and augmentation.
        source: the training images with labels, as :func:`bench.data.sets.load_images` takes them.
        held_out: the images that accuracy is measured on.
        report: called with a line after each epoch.
    """
    data, others = load_images(source), load_images(held_out)
    network = _trained(CifarResNet, data, others, course, seed, moved_and_mirrored, report).folded()
    halves = {name: tensor.half() for name, tensor in network.state_dict().items()}
    network.load_state_dict(halves)
    return _written(Path(path), network, halves, data, others, seed)


def moved_together(x: Tensor, generator: Generator) -> Tensor:
    """Return a batch rolled by at most one pixel in each direction."""
    down, right = torch.randint(-1, 2, (2,), generator=generator).tolist()
    return torch.roll(x, (down, right), (2, 3))


def moved_and_mirrored(x: Tensor, generator: Generator) -> Tensor:
    """Return images (B, C, H, W) moved by up to four pixels over their reflected borders, half mirrored."""
    count, _, height, width = x.shape
    x = torch.where((torch.rand(count, generator=generator) < 0.5)[:, None, None, None], x.flip(3), x)
    padded = functional.pad(x, (_MARGIN,) * 4, mode="reflect").permute(0, 2, 3, 1).contiguous()
    first = torch.randint(0, 2 * _MARGIN + 1, (2, count, 1), generator=generator)
    rows, columns = first[0] + torch.arange(height), first[1] + torch.arange(width)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(network: nn.Module, held_out: ImageData) -> float:
    """Return the share of held-out images that ``network`` names rightly."""
    network.eval()
    parts = [held_out.images[i : i + 500] for i in range(0, len(held_out), 500)]
    named = [network(from_uint8(part)).argmax(1) for part in parts]
    right: Tensor = torch.cat(named) == _labels(held_out)
    return float(right.float().mean())


def _trained(
    make: Callable[[], N],
    data: ImageData,
    held_out: ImageData,
    course: Course,
    seed: int,
    augment: Augment,
    report: Report | None,
) -> N:
    """Return the network after the whole course."""
    labels = _labels(data)
    per_epoch = len(data) // course.batch
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(initial_seed(seed))
        network = make()
        optimiser = torch.optim.AdamW(
            network.parameters(), course.learning_rate, weight_decay=course.weight_decay
        )
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, course.learning_rate, total_steps=course.epochs * per_epoch
        )
        for step in range(course.epochs * per_epoch):
            index = batch_indices(seed, step, course.batch, len(data))
            x = augment(from_uint8(data.images[index]), step_generator(seed, step))
            with torch.autocast("cpu", torch.bfloat16, enabled=course.bfloat16):
                logits = network.train()(x)
            loss = functional.cross_entropy(logits.float(), labels[index], label_smoothing=0.05)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            cycle.step()
            if report is not None and (step + 1) % per_epoch == 0:
                epoch = (step + 1) // per_epoch
                report(f"epoch {epoch}/{course.epochs}  held-out accuracy {accuracy(network, held_out):.4f}")
    return network


def _written(
    path: Path,
    network: nn.Module,
    tensors: dict[str, Tensor],
    data: ImageData,
    held_out: ImageData,
    seed: int,
) -> float:
    """Write what was trained with where it came from, and return its held-out accuracy."""
    score = accuracy(network, held_out)
    metadata = {"data_hash": data.hash, "held_out_accuracy": f"{score:.4f}", "seed": seed}
    write_safetensors(path, tensors, metadata)
    return score


def _labels(data: ImageData) -> Tensor:
    if data.labels is None:
        raise UsageError(f"a classifier needs images with labels, and {data.name} has none")
    return data.labels
