"""Feature spaces of small networks: images through a network in float32, and images resized to its size."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from bench.data.images import from_uint8
from bench.device.precision import full_float32
from bench.errors import UsageError
from bench.files.assets import read_asset
from bench.metrics.space import FeatureSpace, Shape, fingerprint

N = TypeVar("N", bound=nn.Module)

CPU_BATCH = 50  # the maps of more images fall out of the cache
CUDA_BATCH = 500


class NetworkFeatures:
    """uint8 images (B, C, H, W) of one shape -> float32 features (B, d), always in float32, never TF32.

    Args:
        name: the name of the space.
        shape: (C, H, W) of one image.
        dim: number of features d.
        network: what is moved between devices.
        embed: maps images in [-1, 1], float32 (B, C, H, W), to features (B, d) by the network.
        parts: what the fingerprint covers beside the input's scale and the dtype: weights, layer, ...
    """

    most_at_once = CUDA_BATCH

    def __init__(
        self,
        name: str,
        shape: Shape,
        dim: int,
        network: nn.Module,
        embed: Callable[[Tensor], Tensor],
        **parts: object,
    ) -> None:
        self.name, self.shape, self.dim = name, tuple(shape), dim
        self.network = network.eval().requires_grad_(False)
        self.embed = embed
        self.fingerprint = fingerprint(name, input="x / 127.5 - 1", dtype="float32", **parts)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, C, H, W) to float32 features (B, d) on the same device.

        Raises:
            UsageError: for images of another shape or dtype.
        """
        check_images(self.name, self.shape, images)
        if not len(images):
            return torch.empty(0, self.dim, device=images.device)
        size = CPU_BATCH if images.device.type == "cpu" else CUDA_BATCH
        with torch.autocast(images.device.type, enabled=False), full_float32():
            return torch.cat([self.embed(from_uint8(part)) for part in torch.split(images, size)])

    def to(self, device: torch.device | str) -> NetworkFeatures:
        """Move the network to ``device`` and return the space itself."""
        self.network.to(device)
        return self


class ResizedFeatures:
    """A space for images of one size as a space for another: images are resized, then measured.

    Bilinear interpolation, antialiased where an image shrinks (the triangle filter is as wide as a pixel of
    the result), rounded to 8 bits. An image that is not square is squeezed into the square. A distance sees
    what is left of the image: of 256 x 256 pixels brought to 32 x 32 the finest three octaves are not.

    Args:
        space: the space, for uint8 images (B, C, h, w).
        inner: (C, h, w).
        shape: (C, H, W) of one image.
    """

    def __init__(self, space: FeatureSpace, inner: Shape, shape: Shape) -> None:
        self.space, self.inner, self.shape = space, inner, tuple(shape)
        self.name, self.dim = space.name, space.dim
        self.most_at_once = CUDA_BATCH
        size = " x ".join(map(str, inner[1:]))
        self.fingerprint = fingerprint(
            self.name, space=space.fingerprint, resize=f"bilinear, antialiased, to {size}, rounded to uint8"
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, C, H, W) to the features (B, d) of the resized ones.

        Raises:
            UsageError: for images of another shape or dtype.
        """
        check_images(self.name, self.shape, images)
        return self.space(resized(images, self.inner[1:]))

    def to(self, device: torch.device | str) -> ResizedFeatures:
        """Move the space to ``device`` and return this one."""
        self.space = self.space.to(device)
        return self


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return uint8 images (B, C, H, W) as uint8 (B, C, *size): bilinear, antialiased, rounded."""
    if not len(images):
        return images.new_empty(0, images.shape[1], *size)
    with torch.no_grad(), full_float32():
        x = functional.interpolate(images.float(), size, mode="bilinear", antialias=True, align_corners=False)
    return x.round().clamp(0, 255).to(torch.uint8)


def for_shape(space: FeatureSpace, inner: Shape, shape: Shape) -> FeatureSpace:
    """Return a space for images of ``shape``: itself where it takes them, else behind a resize.

    Args:
        space: takes images of shape ``inner``.
        inner: (C, h, w).
        shape: (C, H, W).

    Raises:
        UsageError: for another number of channels.
    """
    if tuple(shape) == inner:
        return space
    check_channels(space.name, inner[0], shape)
    return ResizedFeatures(space, inner, shape)


def check_channels(name: str, channels: int, shape: Shape) -> None:
    """Raise UsageError if ``shape`` is not that of images with a number of channels."""
    if len(shape) != 3 or shape[0] != channels:
        kind = {1: "gray", 3: "RGB"}.get(channels, f"{channels}-channel")
        raise UsageError(
            f"feature space {name} is for {kind} images of shape ({channels}, H, W), not {tuple(shape)};"
            " leave --metrics out for the default of such images, or give fd_random or fd_pixels"
        )


def check_images(name: str, shape: tuple[int, ...], images: Tensor) -> None:
    """Raise UsageError if ``images`` are not uint8 of a shape (C, H, W) each."""
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != shape:
        raise UsageError(
            f"feature space {name} expects uint8 images (B, {', '.join(map(str, shape))}), got"
            f" {images.dtype} {tuple(images.shape)}"
        )


def load_shipped(make: Callable[[], N], file: str, sha256: str) -> N:
    """Return a network with the weights of a shipped file; the global generator stays where it is.

    Args:
        make: makes the network with any weights.
        file: name of a safetensors file in ``models/assets``; float16 weights are widened to the network's.
        sha256: its digest.

    Raises:
        UsageError: if the file is missing, truncated or damaged.
    """
    with torch.random.fork_rng(devices=[]):
        network = make()
    try:
        network.load_state_dict(load(read_asset(file, sha256)))
    except (SafetensorError, RuntimeError) as error:
        raise UsageError(
            f"the package's {file} cannot be read ({error}); install the package again"
        ) from None
    return network
