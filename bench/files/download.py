"""Downloads a file on request, checked before it is put in its place."""

from __future__ import annotations

from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from bench.errors import BenchError
from bench.files.atomic import temporary
from bench.files.digests import file_digest
from bench.files.patience import Transfer

CHUNK = 1 << 20


Download = Callable[[Path | None, Callable[[Path, int, int | None], None]], Path]
"""(folder, or None for the usual one; progress) -> where the file lies.

Progress is told each file, the bytes of it that have arrived, and the bytes there are (None: nobody said).
"""

Arrived = Callable[[int, int | None], None]
"""Called with (bytes so far, bytes in all, None where nobody said)."""


def download(
    url: str, place: Path, digest: str | None, *, size: int | None = None, progress: Arrived | None = None
) -> Path:
    """Download a file to ``place`` and return it; one that is there and right is left alone.

    The file gets its name only when it is whole and its hash is right. Where the connection breaks the
    download goes on from there, after a pause; each new try is logged as a warning.

    Args:
        url: where it is published.
        place: where to put it; the folder is made where it is missing.
        digest: ``md5:...`` or ``sha256:...`` of the content, None where none is published.
        size: bytes; what the server says where None.
        progress: told of every part that arrives.

    Raises:
        BenchError: if the file cannot be downloaded or is not the one expected. Nothing is left behind.
    """
    if place.is_file() and (digest is None or _digest(place, digest) == digest.lower()):
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(
            f"{place.parent} cannot be made ({error.strerror}): choose another folder"
        ) from error
    try:
        with temporary(place) as part:
            _receive(url, part, size, progress)
            if digest is not None and (found := _digest(part, digest)) != digest.lower():
                raise BenchError(
                    f"{url} has {found}, not {digest}: it is damaged or another file, and it was not kept"
                )
            part.replace(place)
    except (OSError, HTTPException) as error:
        named = f" ({digest})" if digest else ""
        raise BenchError(
            f"{place.name} could not be downloaded from {url} ({error}); get it elsewhere{named} and put it"
            f" at {place}"
        ) from error
    return place


def _receive(url: str, part: Path, size: int | None, progress: Arrived | None) -> None:
    done = 0
    with Transfer(url) as transfer, part.open("wb") as out:
        total = transfer.size if size is None else size
        while block := transfer.read(CHUNK):
            done += len(block)
            if total is not None and done > total:
                raise BenchError(f"{url} is longer than the {total:,} bytes expected: it was not kept")
            out.write(block)
            if progress is not None:
                progress(done, total)
    if total is not None and done != total:
        raise BenchError(f"{url} ended after {done:,} of {total:,} bytes: try again")


def _digest(path: Path, like: str) -> str:
    """Return a file's digest by the algorithm that another one names."""
    algorithm = like.partition(":")[0].lower()
    return f"{algorithm}:{file_digest(path, algorithm)}"
