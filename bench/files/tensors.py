"""Safetensors files: tensors by name, with metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bench.files.atomic import write_atomically

NOT_TENSORS = (SafetensorError, OSError, ValueError)
"""What reading a file raises that is missing, damaged or of another format."""


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file and its metadata.

    Raises:
        SafetensorError, OSError, ValueError: see `NOT_TENSORS`.
    """
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
        return tensors, file.metadata() or {}


def tensor_bytes(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[bytes]:
    """Yield what a hash of named tensors is made of: of each the name, shape and dtype, then its bytes."""
    for name, tensor in tensors:
        yield f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode()
        yield tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file so that whoever reads it sees the old one or the new one, even after a loss of power."""
    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(ready, dict(metadata)), lasting=True)


def metadata_of(data: bytes) -> dict[str, str]:
    """Return the metadata in the bytes of a file.

    Raises:
        ValueError, KeyError: if there is none.
    """
    length = int.from_bytes(data[:8], "little")  # the format: a length of 8 bytes, then a header of JSON
    return {str(k): str(v) for k, v in json.loads(data[8 : 8 + length])["__metadata__"].items()}
