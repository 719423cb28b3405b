"""Image files to one array, decoded by all cores; what cannot be decoded is listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bench.errors import UsageError

Pixels = NDArray[np.uint8]


_UNDECODABLE = (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)


_AT_ONCE = 1024  # results that may wait for their turn

_LOSSY = frozenset({"JPEG", "MPO", "JPEG2000"})

_NO_PICTURES = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "EPS", "WMF", "PDF"})
"""Formats that the decoder has a name for and cannot decode alone."""


@dataclass(frozen=True)
class Decoded:
    """Images with what was done to their files.

    Attributes:
        pixels: uint8 (N, C, H, W).
        unreadable: files that could not be decoded.
        remarks: a sentence for everything that was done to some of them or left out.
        lossy: how many came from files of a lossy format.
    """

    pixels: Pixels
    unreadable: tuple[Path, ...] = ()
    remarks: tuple[str, ...] = ()
    lossy: int = 0


class _One(NamedTuple):
    pixels: Pixels
    facts: tuple[str, ...]


def image_suffixes() -> frozenset[str]:
    """Return the suffixes, in small letters, of every format that the decoder can read."""
    formats = Image.registered_extensions()
    return frozenset(end for end, kind in formats.items() if kind in Image.OPEN and kind not in _NO_PICTURES)


def decode(
    files: Sequence[Path], strict: bool, prepare: Callable[[Image.Image, Path], Image.Image] | None = None
) -> Decoded:
    """Return the images in the order of ``files``, with what was done to them.

    Gray images among coloured ones get three equal channels, transparency is dropped, of a moving picture the
    first frame is taken: all of it is told.

    Args:
        files: image files.
        strict: whether one that cannot be decoded is an error.
        prepare: crops or resizes an image.

    Raises:
        UsageError: if sizes differ, none can be decoded, or one cannot and ``strict`` is set.
    """

    def read(file: Path) -> _One | Exception:
        try:
            with Image.open(file) as image:
                if image.mode in ("I", "F") or image.mode.startswith("I;"):
                    raise UsageError(
                        f"{file} has more than 8 bits a channel (mode {image.mode}); save it with 8, in the"
                        " range that the model's images have"
                    )
                facts = tuple(name for name, holds in _FACTS.items() if holds(image))
                mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
                ready = image.convert(mode)
            if prepare is not None:
                ready = prepare(ready, file)
            return _One(np.atleast_3d(np.asarray(ready, np.uint8)).transpose(2, 0, 1), facts)
        except UsageError:
            raise
        except _UNDECODABLE as error:
            return error

    pixels: Pixels | None = None
    unreadable: list[Path] = []
    facts: Counter[str] = Counter()
    kept = 0
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), _AT_ONCE):
            some = files[start : start + _AT_ONCE]
            for file, found in zip(some, pool.map(read, some), strict=True):
                if isinstance(found, Exception):
                    if strict:
                        raise UsageError(f"{file} cannot be decoded ({found})") from None
                    unreadable.append(file)
                    continue
                image = found.pixels
                if pixels is None:
                    pixels = np.empty((len(files), *image.shape), np.uint8)
                if image.shape[1:] != pixels.shape[2:]:
                    raise UsageError(
                        f"{file} is {_size(image)} where the images before it in {files[0].parent}"
                        f" are {_size(pixels[0])}; all must have one size"
                    )
                if len(image) == 3 and pixels.shape[1] == 1:
                    pixels = np.repeat(pixels, 3, axis=1)
                pixels[kept] = image  # one channel fills three
                facts.update(found.facts)
                kept += 1
    if pixels is None:
        raise UsageError(f"none of the {len(files)} images in {files[0].parent} can be decoded")
    if pixels.shape[1] == 1 or facts["gray"] == kept:
        del facts["gray"]
    remarks = tuple(
        f"{facts[name]:,} of {kept:,} images {told}" for name, told in _TOLD.items() if facts[name]
    )
    return Decoded(pixels[:kept], tuple(unreadable), remarks, facts["lossy"])


_FACTS: Mapping[str, Callable[[Image.Image], bool]] = {
    "gray": lambda image: image.mode in ("1", "L", "LA"),
    "transparent": lambda image: image.has_transparency_data,
    "moving": lambda image: getattr(image, "n_frames", 1) > 1,
    "lossy": lambda image: image.format in _LOSSY,
}

_TOLD = {
    "gray": "are gray and get three equal channels, as the others are coloured",
    "transparent": "have transparency, which is dropped",
    "moving": "have several frames, of which the first is taken",
    "lossy": "are compressed with losses (JPEG), which moves scores",
}
"""What is said of images with a fact."""


def _size(pixels: Pixels) -> str:
    channels, height, width = pixels.shape
    return f"{width} x {height} x {channels}"
