"""Image files to one array, decoded by all cores; what cannot be decoded is listed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
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


_SAID_TO_BE = frozenset(
    {
        ".avif",
        ".heic",
        ".heif",
        ".hif",
        ".jxl",
        ".exr",
        ".hdr",
        ".svg",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
    }
)
"""Suffixes of pictures, whether or not the decoder can read them."""

_BEGINNINGS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF8",
    b"II*\0",
    b"MM\0*",
    b"8BPS",
    b"v/1\x01",  # OpenEXR
    b"\0\0\0\x0cjP  ",
    b"\0\0\0\x0cJXL ",
)
"""First bytes of files that are pictures, whatever their names."""

_BRANDS = frozenset({b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1"})
"""What bytes 8 to 12 say of a picture where bytes 4 to 8 are ``ftyp`` (ISO/IEC 23008-12)."""


class _One(NamedTuple):
    pixels: Pixels
    facts: tuple[str, ...]


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes, in small letters, of every format that the decoder can read."""
    formats = Image.registered_extensions()
    return frozenset(end for end, kind in formats.items() if kind in Image.OPEN and kind not in _NO_PICTURES)


def is_picture(file: Path) -> bool:
    """Return whether a file is a picture, by its suffix or its first bytes: also one of an unknown format."""
    if file.suffix.lower() in image_suffixes() | _SAID_TO_BE:
        return True
    try:
        with file.open("rb") as opened:
            head = opened.read(12)
    except OSError:
        return True  # a link to nothing, or a file that may not be read: nobody can say that it is none
    webp = head[:4] == b"RIFF" and head[8:] == b"WEBP"
    return head.startswith(_BEGINNINGS) or webp or (head[4:8] == b"ftyp" and head[8:] in _BRANDS)


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
                if is_deep(image, file):
                    raise UsageError(
                        f"{file} has more than 8 bits a channel; save it with 8, in the range that the"
                        " model's images have"
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
                        raise UsageError(_refusal(file, found)) from None
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


def _refusal(file: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return (
            f"{file} cannot be decoded: it is damaged, or of a format that is not known here; save it as PNG,"
            " or take it out of the set"
        )
    if isinstance(error, FileNotFoundError):
        return f"{file} is a link that leads nowhere; mend it, or take it out of the set"
    return f"{file} cannot be decoded ({error})"


def is_deep(image: Image.Image, file: Path) -> bool:
    """Return whether an image has more than 8 bits a channel, which the decoder would cut to 8.

    The decoder keeps no number of bits: modes say it of gray images, what a part of the file is unpacked from
    of others, and of the two formats that are unpacked elsewhere the files themselves.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return True
    if image.format in ("JPEG2000", "AVIF"):
        with file.open("rb") as opened:
            head = opened.read(4096)
        start, offset, bits = _DEPTHS[image.format]
        place = head.find(start)
        return place >= 0 and bool(bits(head[place + offset : place + offset + 1] or b"\0"))
    for codec, _, _, args in getattr(image, "tile", ()):
        packed = args if isinstance(args, tuple) else (args,)
        if codec == "SGI16" or (codec == "ppm" and packed[1] > 255):
            return True
        if re.search(r";16[LBN]", str(packed[0])):
            return True
    return False


_DEPTHS: Mapping[str, tuple[bytes, int, Callable[[bytes], bool]]] = {
    # ISO/IEC 15444-1, A.5.1: after SIZ 2 + 2 + 8 * 4 + 2 bytes, then the first component's bits, less one.
    "JPEG2000": (b"\xff\x4f\xff\x51", 42, lambda byte: byte[0] & 0x7F > 7),
    # AV1 in ISOBMFF, 2.3.3: the third byte of av1C has seq_tier_0, then high_bitdepth.
    "AVIF": (b"av1C", 6, lambda byte: byte[0] & 0x40 > 0),
}
"""Format -> (bytes before, from their start to the byte that tells, whether it says more than 8 bits)."""


def _size(pixels: Pixels) -> str:
    channels, height, width = pixels.shape
    return f"{width} x {height} x {channels}"
