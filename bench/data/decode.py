"""Image files to one array, decoded by all cores; what cannot be decoded is listed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bench.errors import UsageError

Pixels = NDArray[np.uint8]


_UNDECODABLE = (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)


_AT_ONCE = 1024  # results that may wait for their turn


def decode(
    files: Sequence[Path], strict: bool, prepare: Callable[[Image.Image, Path], Image.Image] | None = None
) -> tuple[Pixels, tuple[Path, ...]]:
    """Return the images as uint8 (N, C, H, W) in the order of ``files``, and the files left out.

    Args:
        files: image files.
        strict: whether one that cannot be decoded is an error.
        prepare: crops or resizes an image.

    Raises:
        UsageError: if sizes differ, none can be decoded, or one cannot and ``strict`` is set.
    """

    def read(file: Path) -> Pixels | Exception:
        try:
            with Image.open(file) as image:
                if image.mode in ("I", "F") or image.mode.startswith("I;"):
                    raise UsageError(
                        f"{file} has more than 8 bits a channel (mode {image.mode}); save it with 8, in the"
                        " range that the model's images have"
                    )
                mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
                ready = image.convert(mode)
            if prepare is not None:
                ready = prepare(ready, file)
            return np.atleast_3d(np.asarray(ready, np.uint8)).transpose(2, 0, 1)
        except UsageError:
            raise
        except _UNDECODABLE as error:
            return error

    pixels: Pixels | None = None
    unreadable: list[Path] = []
    kept = 0
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), _AT_ONCE):
            some = files[start : start + _AT_ONCE]
            for file, image in zip(some, pool.map(read, some), strict=True):
                if isinstance(image, Exception):
                    if strict:
                        raise UsageError(f"{file} cannot be decoded ({image})") from None
                    unreadable.append(file)
                    continue
                if pixels is None:
                    pixels = np.empty((len(files), *image.shape), np.uint8)
                if image.shape != pixels.shape[1:]:
                    raise UsageError(
                        f"{file} is {_size(image)} where the images before it in {files[0].parent}"
                        f" are {_size(pixels[0])}; all must have one size and one number of channels"
                    )
                pixels[kept] = image
                kept += 1
    if pixels is None:
        raise UsageError(f"none of the {len(files)} images in {files[0].parent} can be decoded")
    return pixels[:kept], tuple(unreadable)


def _size(pixels: Pixels) -> str:
    channels, height, width = pixels.shape
    return f"{width} x {height} x {channels}"
