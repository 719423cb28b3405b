"""What ``nll`` was asked for, and the images it means."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from torch import Tensor

from bench.data.sets import load_images
from bench.diffusion.bound import BoundClip, ReverseVariance
from bench.errors import UsageError
from bench.plugins.cards import LoadedModel
from bench.records.ledger import check_numbers

VARIANCES: tuple[ReverseVariance, ...] = ("fixedsmall", "fixedlarge", "learned")


DEFAULT_N = 1000


@dataclass(frozen=True)
class BoundRequest:
    """What ``nll`` was asked for.

    Attributes:
        model: what ``--model`` takes.
        data: image set; the model's held-out images, else its data, where None.
        variances: one row of the table each; all that the model allows where empty.
        steps: one column each; all T where empty.
        spacing: rule that chooses the time steps.
        n: images, the first of the set; `DEFAULT_N`, or as many as there are, where None.
        seed: the seed of the noise.
        clip: how the predicted x_0 is clipped.
        batch: images at a time; the model's default where None.
        precision: the key in `PRECISIONS` of the network's arithmetic.
        device: torch device.
    """

    model: str
    data: str | None = None
    variances: tuple[ReverseVariance, ...] = ()
    steps: tuple[int, ...] = ()
    spacing: str = "openai"
    n: int | None = None
    seed: int = 0
    clip: BoundClip = "x0"
    batch: int | None = None
    precision: str = "float32"
    device: str = "cpu"


def named_images(loaded: LoadedModel, request: BoundRequest) -> str | None:
    """Return the name or path of the image set that is meant; None where the model draws its own."""
    return request.data or loaded.card.held_out or loaded.card.data


def find_images(loaded: LoadedModel, request: BoundRequest) -> Tensor:
    """Return the first n images of the set that is meant, uint8 (n, C, H, W).

    Raises:
        UsageError: if there is no such set, it is too small, or its images have another shape.
    """
    wanted, name = request.n, named_images(loaded, request)
    if name is not None:
        data = load_images(name, strict=True)
        for remark in data.remarks:
            warnings.warn(remark, stacklevel=2)
        images = data.images
    elif loaded.floor is not None:
        name = f"draws from {loaded.card.name}"
        images = loaded.floor(wanted or DEFAULT_N, request.seed)
    else:
        raise UsageError(
            f"model {request.model!r} does not say what it was trained on; give --data with an image folder,"
            " an .npz or the name of an image set"
        )
    if tuple(images.shape[1:]) != tuple(loaded.model.shape):
        raise UsageError(
            f"images of {name} are {tuple(images.shape[1:])} and the model's {tuple(loaded.model.shape)}"
            " (channels, height, width); give --data with images of the model's shape"
        )
    if wanted is not None and wanted > len(images):
        raise UsageError(f"{name} has {len(images):,} images; give --n of at most that")
    if len(images) < 2:
        raise UsageError(f"{name} has a single image; a standard error needs at least 2")
    return images[: wanted or DEFAULT_N]


def check_request(request: BoundRequest) -> None:
    """Raise UsageError if a number is out of its range."""
    check_numbers(n=request.n, batch=request.batch, seed=request.seed, steps=request.steps, what="images")
