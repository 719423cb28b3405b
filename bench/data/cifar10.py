"""CIFAR-10 as its authors publish it: the Python archive or the binary one, packed or unpacked.

The batches of the Python archive are pickles. They are never unpickled: their opcodes are read as data, and
the pixels and labels taken from among the arguments, so that nothing in them is executed.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
"""

from __future__ import annotations

import pickletools
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.errors import UsageError

FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin")


ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")


WHERE = (
    "get cifar-10-python.tar.gz (170,498,071 bytes) from https://www.cs.toronto.edu/~kriz/cifar.html and put"
    " it, or what is in it, there"
)


TRAIN_SET = "f7aa50d3920a42f314281ae3bc03fdd3f0fec58118d30ab975457bf7f41fa77c"
"""`bench.data.set_hash` of the training images: of those whose binary batches have the MD5 that are known."""


_BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}


_PIXELS = 3 * 32 * 32


_MOST_BYTES = 64_000_000  # a batch has 31 million


_INTEGERS = frozenset({"BININT", "BININT1", "BININT2", "INT", "LONG1"})


_NOTES = frozenset({"BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE", "MARK", "EMPTY_LIST", "APPENDS", "APPEND"})


def find_cifar(root: Path) -> Path | None:
    """Return the batches or archive at ``root`` or directly in it, None where there are none."""
    if root.is_file():
        return root if root.name.endswith((".tar.gz", ".tgz", ".tar")) else None
    if any((root / f"data_batch_1{suffix}").is_file() for suffix in ("", ".bin")):
        return root
    return next((root / name for name in (*FOLDERS, *ARCHIVES) if (root / name).exists()), None)


def read_cifar(place: Path, split: str) -> tuple[Tensor, Tensor]:
    """Return uint8 images (N, 3, 32, 32) and int64 labels (N,) in the order of the batches.

    Args:
        place: what `find_cifar` found.
        split: ``train`` (50,000) or ``test`` (10,000).

    Raises:
        UsageError: if a batch is missing or damaged.
    """
    found = dict(_packed(place, split) if place.is_file() else _unpacked(place, split))
    images, labels = [], []
    for name in _BATCHES[split]:
        if name in found:
            pixels, ids = _pickled(found[name], f"{name} in {place}")
        elif f"{name}.bin" in found:
            pixels, ids = _binary(found[f"{name}.bin"], f"{name}.bin in {place}")
        else:
            other = ", or unpack it if it holds other images and give their folder" if place.is_file() else ""
            raise UsageError(f"{place} lacks the CIFAR-10 batch {name}; get the archive again{other}")
        images.append(pixels)
        labels.append(ids)
    return torch.from_numpy(np.concatenate(images).reshape(-1, 3, 32, 32)), torch.from_numpy(
        np.concatenate(labels)
    )


def _unpacked(folder: Path, split: str) -> Iterator[tuple[str, bytes]]:
    for name in _BATCHES[split]:
        for path in (folder / name, folder / f"{name}.bin"):
            if path.is_file() and path.stat().st_size <= _MOST_BYTES:
                yield path.name, path.read_bytes()


def _packed(archive: Path, split: str) -> Iterator[tuple[str, bytes]]:
    wanted = {name + suffix for name in _BATCHES[split] for suffix in ("", ".bin")}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                file = tar.extractfile(member) if member.isfile() and member.size <= _MOST_BYTES else None
                if name in wanted and file is not None:
                    yield name, file.read()
    except (tarfile.TarError, zlib.error, OSError, EOFError) as error:
        raise UsageError(f"{archive} is truncated or no archive ({error}); get it again") from None


def _binary(batch: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not batch or len(batch) % (1 + _PIXELS):
        raise UsageError(f"{where} is truncated: it is no whole number of records of {1 + _PIXELS} bytes")
    records = np.frombuffer(batch, np.uint8).reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _pickled(batch: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    found = _strings_and_integers(batch, where)
    labels = np.array(found.get("labels", ()), np.int64)
    pixels = found.get("data", b"")
    if not len(labels) or not isinstance(pixels, bytes) or len(pixels) != len(labels) * _PIXELS:
        raise UsageError(f"{where} does not hold one label and {_PIXELS} uint8 pixels an image; get it again")
    return np.frombuffer(pixels, np.uint8).reshape(-1, _PIXELS), labels


def _strings_and_integers(batch: bytes, where: str) -> Mapping[str, list[int] | bytes]:
    """Return the integers that follow the text "labels" and the longest text that follows "data"."""
    labels: list[int] = []
    pixels = b""
    key = ""
    try:
        for opcode, argument, _ in pickletools.genops(batch):
            if isinstance(argument, str | bytes):
                text = argument if isinstance(argument, bytes) else argument.encode("latin-1", "replace")
                if text in (b"data", b"labels", b"filenames", b"batch_label"):
                    key = text.decode()
                elif key == "data" and len(text) > len(pixels):
                    pixels = text
            elif key == "labels" and opcode.name in _INTEGERS:
                labels.append(int(argument or 0))
            elif key == "labels" and opcode.name not in _NOTES:
                key = ""
    except (ValueError, IndexError) as error:
        raise UsageError(f"{where} is truncated or damaged ({error}); get the archive again") from None
    return {"labels": labels, "data": pixels}
