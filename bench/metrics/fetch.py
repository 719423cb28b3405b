"""Downloads a weight file on request, checked before it is put in its place."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bench.errors import BenchError

_CHUNK = 1 << 20


class Remote(Protocol):
    """A file somewhere else whose content is known."""

    @property
    def name(self) -> str:
        """File name."""
        ...

    @property
    def url(self) -> str:
        """Where it is published."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of the content."""
        ...


def fetch(
    file: Remote,
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    url: str | None = None,
) -> Path:
    """Download ``file`` into ``folder`` and return its path; a file that is there and right is left alone.

    Args:
        file: name, address, size and hash.
        folder: made where it is missing.
        progress: called with (bytes so far, bytes in all).
        url: a mirror, instead of ``file.url``.

    Raises:
        BenchError: if the file cannot be downloaded or is not the one expected. Nothing is left behind.
    """
    place = folder / file.name
    if place.is_file() and _sha256(place) == file.sha256:
        return place
    source = url or file.url
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"{folder} cannot be made ({error.strerror}): choose another folder") from error
    try:
        return _fetched(file, source, place, progress)
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(
            f"{file.name} could not be downloaded from {source} ({error}); get it elsewhere (SHA-256"
            f" {file.sha256}) and put it at {place}"
        ) from error


def _fetched(file: Remote, source: str, place: Path, progress: Callable[[int, int], None] | None) -> Path:
    with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".part", delete=False) as part:
        try:
            _download(source, part.file, file, progress)
            part.flush()
            found = _sha256(Path(part.name))
            if found != file.sha256:
                raise BenchError(f"{source} has SHA-256 {found}, not {file.sha256}: it was not kept")
            os.replace(part.name, place)
        finally:
            Path(part.name).unlink(missing_ok=True)
    return place


def _download(source: str, target: object, file: Remote, progress: Callable[[int, int], None] | None) -> None:
    write = target.write  # type: ignore[attr-defined]
    done = 0
    with urllib.request.urlopen(source, timeout=60) as response:
        while block := response.read(_CHUNK):
            done += len(block)
            if done > file.size:
                raise BenchError(
                    f"{source} is longer than the {file.size:,} bytes of {file.name}: it was not kept"
                )
            write(block)
            if progress is not None:
                progress(done, file.size)
    if done != file.size:
        raise BenchError(f"{source} ended after {done:,} of {file.size:,} bytes: try again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
