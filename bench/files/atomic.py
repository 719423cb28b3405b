"""Files that appear whole or not at all, whatever kills the writer."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
def writing(path: Path, *, lasting: bool = False) -> Iterator[BinaryIO]:
    """Give a file to write, which is ``path`` once it was closed without an exception.

    Args:
        path: the file that is to be.
        lasting: whether a loss of power must find it as it is from then on; this waits for the disk.

    Raises:
        OSError: if it cannot be written; it names the file, as one of a full disk does not by itself.
    """
    try:
        with temporary(path) as beside:
            with beside.open("wb") as file:
                yield file
                if lasting:
                    file.flush()
                    os.fsync(file.fileno())
            beside.replace(path)
            if lasting:
                _sync_folder(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def write_atomically(path: Path, content: bytes, *, lasting: bool = False) -> None:
    """Write a file so that a reader, or a kill, sees the old content or the new; see `writing`."""
    with writing(path, lasting=lasting) as file:
        file.write(content)


def _sync_folder(folder: Path) -> None:
    """Have a folder's names on the disk: without them a file that is there has none."""
    with suppress(OSError):  # Windows opens no folders, and some file systems sync none
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


HELD = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that may raise an exception wherever the program is."""


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and its like wait until a file is whole: numpy's archive complains aloud when cut off."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {number: handler for number in HELD if callable(handler := signal.getsignal(number))}
    for number in before:
        signal.signal(number, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        before[came[0][0]](*came[0])
