"""Images: from the sampler's range to the eight bits that every score is computed on."""

from __future__ import annotations

import torch
from torch import Tensor


def to_uint8(x: Tensor) -> Tensor:
    """Return images in [-1, 1] as uint8, clip(127.5 x + 128, 0, 255) truncated; the shape stays.

    That rounds to the nearest level. Truncating 127.5 x + 127.5 instead moves FID by 0.2%, floats by
    more, and published code does all three. Source: Karras et al. 2022's published code.
    """
    return (x * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def to_device(images: Tensor, device: torch.device | str) -> Tensor:
    """Return images on ``device``; from the CPU to a GPU through pinned memory, without waiting for it."""
    if torch.device(device).type != "cuda" or images.device.type != "cpu":
        return images.to(device)
    return images.pin_memory().to(device, non_blocking=True)


def from_uint8(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return uint8 images in [-1, 1]: x / 127.5 - 1, the training input of all papers here."""
    return images.to(dtype) / 127.5 - 1
