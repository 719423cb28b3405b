"""Image data: the shipped digits, published sets, any .npz or folder; as uint8 (N, C, H, W) with a hash."""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data.celeba import WHERE as CELEBA_WHERE
from bench.data.celeba import crop, find_celeba
from bench.data.cifar10 import ARCHIVES as CIFAR_ARCHIVES
from bench.data.cifar10 import FOLDERS as CIFAR_FOLDERS
from bench.data.cifar10 import WHERE as CIFAR_WHERE
from bench.data.cifar10 import find_cifar, read_cifar
from bench.data.decode import Decoded, decode, is_picture
from bench.errors import UnknownNameError, UsageError
from bench.files.assets import read_asset

DIGITS_FILE = "digits-images.npz.xz"


DIGITS_SHA256 = "27ed0c8c1c4476f2c18ca14408e12ba85cab3cc283e1c36bb97cfb5dc7ce61c3"


SHIPPED = ("digits", "digits-held-out")


PUBLISHED = ("cifar10", "cifar10-test", "celeba64")


NAMED = (*SHIPPED, *PUBLISHED)


_HELD_OUT = {"digits": "digits-held-out", "cifar10": "cifar10-test"}

DATA_VARIABLE = "SAMPLER_BENCH_DATA"
"""Environment variable: the folder where the published sets lie; ``data`` where it is not set."""


IMAGE_KEYS = ("images", "arr_0", "samples")
"""Names under which an .npz holds images."""


_NAMED = 5  # files that a remark names


@dataclass(frozen=True, eq=False)
class ImageData:
    """A set of images.

    Attributes:
        name: for people.
        images: uint8, shape (N, C, H, W).
        hash: SHA-256 over shape and pixels: the same images have the same hash wherever they lie.
        labels: int64 (N,), where the set has them.
        unreadable: files of a folder that could not be decoded.
        remarks: a sentence for everything that was left out or done to some of the images.
        lossy: how many came from files of a lossy format, in sets of the user's own.
    """

    name: str
    images: Tensor
    hash: str
    labels: Tensor | None = None
    unreadable: tuple[Path, ...] = field(default=())
    remarks: tuple[str, ...] = ()
    lossy: int = 0

    def __len__(self) -> int:
        return len(self.images)


def load_images(source: str | Path, *, strict: bool = False) -> ImageData:
    """Return the images that ``source`` names.

    Args:
        source: ``digits`` (40,000 training images, 12 x 12), ``digits-held-out`` (6,000 others, never
            trained on); ``cifar10``, ``cifar10-test`` or ``celeba64``, looked for in the folder that
            SAMPLER_BENCH_DATA names (``data`` if it is not set) or in FOLDER with ``cifar10:FOLDER``; an .npz
            file with one of ``images``, ``arr_0`` and ``samples`` in uint8, (N, H, W), (N, H, W, C) with
            C = 1 or 3, or (N, C, H, W); an .npy file of such an array; an archive or folder of CIFAR-10;
            or a folder of images of one size, searched at any depth and through links, hidden files apart,
            and read in the order of their names; what is an image is told by a file's suffix or first bytes.
        strict: whether a file that cannot be decoded is an error; otherwise it is left out and listed.

    Raises:
        UsageError: one sentence saying what is wrong and where.
    """
    if source in SHIPPED:
        return _digits(str(source))
    name, _, folder = str(source).partition(":")
    if name in PUBLISHED:
        return _published(name, _root(folder), strict)
    path = Path(source)
    if place := find_cifar(path):
        return _cifar(place, "train")
    if path.is_dir():
        return _folder(path, strict)
    if path.is_file():
        if is_picture(path):
            raise UsageError(f"{path} is one image; give the folder that it lies in, or an .npz file")
        return _npz(path)
    if path.suffix or len(path.parts) > 1:
        raise UsageError(
            f"no image data at {path}: give an existing .npz file or folder, or one of {', '.join(NAMED)}"
        )
    raise UnknownNameError("image data set", str(source), NAMED)


def is_here(source: str | Path) -> bool:
    """Return whether there is anything at the place that ``source`` names; it may still be damaged."""
    name, _, folder = str(source).partition(":")
    if name in PUBLISHED:
        root = _root(folder)
        return bool(find_celeba(root)) if name == "celeba64" else find_cifar(root) is not None
    return source in SHIPPED or Path(source).exists()


def held_out_of(source: str) -> str | None:
    """Return the named set of images that were held out of a named one; None where there is none here."""
    name, colon, folder = source.partition(":")
    found = f"{_HELD_OUT[name]}{colon}{folder}" if name in _HELD_OUT else None
    return found if found is not None and is_here(found) else None


def content_hash(images: Tensor) -> str:
    """Return the SHA-256 over shape and pixels of uint8 images (N, C, H, W)."""
    digest = hashlib.sha256(",".join(map(str, images.shape)).encode())
    digest.update(images.contiguous().cpu().numpy().data)
    return digest.hexdigest()


def count_shared(images: Tensor, others: Tensor) -> int:
    """Return how many uint8 images (N, C, H, W) are among others too, to the bit."""

    def digests(part: Tensor) -> list[bytes]:
        return [hashlib.sha256(image).digest() for image in part.reshape(len(part), -1).cpu().numpy()]

    known = set(digests(others))
    return sum(digest in known for digest in digests(images))


def set_hash(images: Tensor) -> str:
    """Return the SHA-256 over shape and pixels of uint8 images (N, C, H, W) in the order of their bytes.

    It is the same for the same images in whatever order: a folder or an .npz need not keep the batches'.
    """
    digest = hashlib.sha256(",".join(map(str, images.shape)).encode())
    for image in sorted(map(bytes, images.reshape(len(images), -1).cpu().numpy())):
        digest.update(image)
    return digest.hexdigest()


@lru_cache(maxsize=2)
def _digits(name: str) -> ImageData:
    packed = read_asset(DIGITS_FILE, DIGITS_SHA256)
    split = "train" if name == "digits" else "held_out"
    with np.load(io.BytesIO(lzma.decompress(packed)), allow_pickle=False) as arrays:
        images = torch.from_numpy(arrays[f"{split}_images"]).unsqueeze(1)
        labels = torch.from_numpy(arrays[f"{split}_labels"].astype(np.int64))
    return ImageData(name, images, content_hash(images), labels)


def _npz(path: Path) -> ImageData:
    try:
        opened = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            stack = _channels_first(opened, path, "the array")
            return ImageData(str(path), stack, content_hash(stack))
        with opened as arrays:
            key = _key_of(arrays, path)
            pixels = arrays[key]
            labels = arrays.get("labels")
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError) as error:
        if isinstance(error, UsageError):
            raise
        reason = "no archive of arrays, or one of objects" if "pickle" in str(error) else str(error)
        raise UsageError(f"{path} cannot be read as .npz ({reason}); it may be truncated") from None
    images = _channels_first(pixels, path, key)
    if labels is not None and (labels.shape != (len(images),) or labels.dtype.kind not in "iu"):
        raise UsageError(
            f"labels in {path} must be {len(images)} integers, got {labels.dtype} {labels.shape}"
        )
    ids = None if labels is None else torch.from_numpy(labels.astype(np.int64))
    return ImageData(str(path), images, content_hash(images), ids)


def _key_of(arrays: np.lib.npyio.NpzFile, path: Path) -> str:
    """Return under which name an .npz holds images.

    Raises:
        UsageError: if it is under none, or there are two of them.
    """
    there = [key for key in IMAGE_KEYS if key in arrays]
    if len(there) == 1:
        return there[0]
    if there:
        raise UsageError(
            f"{path} holds {' and '.join(there)}, each a name of images; save those that are meant alone"
        )
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
    if members and not any(name.endswith(".npy") for name in members):
        raise UsageError(
            f"{path} is a zip archive of {len(members):,} files and no .npz; unpack it and give the folder"
        )
    found = _first(arrays.files) or "nothing"
    raise UsageError(f"{path} holds {found}; images must be under one of {', '.join(IMAGE_KEYS)}")


def _channels_first(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], path: Path, key: str) -> Tensor:
    if pixels.dtype != np.uint8:
        raise UsageError(f"{key} in {path} is {pixels.dtype}; images must be uint8, 0 to 255")
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif (
        pixels.ndim == 4 and pixels.shape[3] in (1, 3) and pixels.shape[2:] != (1, 1)
    ):  # points: (N, C, 1, 1)
        pixels = pixels.transpose(0, 3, 1, 2)
    if pixels.ndim != 4 or 0 in pixels.shape:
        raise UsageError(
            f"{key} in {path} has shape {pixels.shape}; expected (N, H, W), (N, H, W, C) with 1 or 3"
            " channels, or (N, C, H, W), and at least one image"
        )
    return torch.from_numpy(np.ascontiguousarray(pixels))


def _folder(path: Path, strict: bool) -> ImageData:
    files, others, again = list[Path](), list[Path](), list[Path]()
    for file in sorted(_below(path, again)):
        (files if is_picture(file) else others).append(file)
    if not files:
        raise UsageError(
            f"{path} holds no images; looked for .png, .jpg, .webp, .gif and others at any depth"
        )
    found = decode(files, strict)
    left = [
        f"{len(some):,} {what}: {_first([str(one.relative_to(path)) for one in some])}"
        for some, what in (
            (others, "files beside the images are none and left out"),
            (again, "folders are linked to more than once and read once"),
        )
        if some
    ]
    return replace(_decoded(str(path), found), remarks=(*found.remarks, *left), lossy=found.lossy)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _below(root: Path, again: list[Path]) -> Iterator[Path]:
    """Yield the files at any depth, hidden ones apart: those of linked folders too, and links to nothing.

    Folders that are met again, through a link, are put in ``again``.
    """
    seen: set[Path] = set()
    own, linked = [root], list[Path]()
    while own or linked:
        by_link = not own  # last, so that of two ways to a folder the link is the other one
        folder = linked.pop(0) if by_link else own.pop()
        if folder.resolve() in seen:
            again.append(folder)
            continue
        seen.add(folder.resolve())
        for entry in sorted(folder.iterdir()):
            if _is_hidden(entry.relative_to(root)):
                continue
            if entry.is_dir():
                (linked if by_link or entry.is_symlink() else own).append(entry)
            elif entry.is_file() or not entry.exists():
                yield entry


def _is_hidden(place: Path) -> bool:
    """Return whether a file is one that systems leave beside images: ``._1.png``, ``.thumbs/1.png``."""
    return any(part.startswith(".") or part == "__MACOSX" for part in place.parts)


def _decoded(name: str, found: Decoded) -> ImageData:
    images = torch.from_numpy(found.pixels)
    return ImageData(name, images, content_hash(images), None, found.unreadable)


def _cifar(place: Path, split: str) -> ImageData:
    images, labels = read_cifar(place, split)
    return ImageData(f"CIFAR-10 {split}", images, content_hash(images), labels)


def _root(folder: str) -> Path:
    """Return where the published sets are looked for."""
    return Path(folder or os.environ.get(DATA_VARIABLE) or "data")


def _published(name: str, root: Path, strict: bool) -> ImageData:
    if name == "celeba64":
        if files := find_celeba(root):
            return _decoded("CelebA 64 x 64", decode(files, strict, crop))
        what, where, looked = "CelebA", CELEBA_WHERE, "img_align_celeba"
    else:
        if place := find_cifar(root):
            return _cifar(place, "test" if name == "cifar10-test" else "train")
        what, where, looked = "CIFAR-10", CIFAR_WHERE, ", ".join((*CIFAR_FOLDERS, *CIFAR_ARCHIVES))
    raise UsageError(
        f"{what} is not in {root.resolve()} (looked for {looked}): {where}, or say where it is with"
        f" {DATA_VARIABLE}=FOLDER, or name {name}:FOLDER in the place of {name}"
    )
