"""Files that appear whole or not at all, whatever kills the writer."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import BinaryIO


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Give a path beside ``path``, to be written and renamed to it; what is left there is gone in the end."""
    mine = f"{os.getpid()}-{secrets.token_hex(4)}"  # processes of two machines may have one number
    beside = path.with_name(f".{path.name}.{mine}.tmp")
    try:
        yield beside
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write, which is ``path`` once it was closed without an exception."""
    with temporary(path) as beside:
        with beside.open("wb") as file:
            yield file
        beside.replace(path)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill, sees the old content or the new."""
    with writing(path) as file:
        file.write(content)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until a file is whole: numpy's archive complains aloud when it is cut off."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return
    came: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came and callable(before):
        before(*came[0])
