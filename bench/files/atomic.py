"""Files that appear whole or not at all, whatever kills the writer."""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from bench.errors import BenchError

TEMPORARY = ".tmp"
"""How the name of a file ends that is being written, or was when its process was killed."""


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Give a path beside ``path``, to be written and renamed to it; what is left there is gone in the end.

    What killed processes left in the folder goes at the first write into it.
    """
    _drop_left(path.parent.resolve())
    mine = f"{_place()}-{os.getpid()}-{secrets.token_hex(4)}"
    beside = path.with_name(f".{path.name[:60]}.{mine}{TEMPORARY}")
    try:
        yield beside
    finally:
        beside.unlink(missing_ok=True)


@functools.cache
def _place() -> str:
    """Return what tells this machine, or container, from others: two of them may give one number twice."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


@functools.cache
def _drop_left(folder: Path) -> None:
    """Remove what processes of this machine that are no more have left in a folder, once a process."""
    with suppress(OSError, ValueError):  # a name that only looks like one of ours
        for left in folder.glob(f".*.{_place()}-*-*{TEMPORARY}"):
            if not _is_alive(int(left.name.rsplit("-", 2)[1])):
                left.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    """Return whether a process of this machine is there; where asking would end it, it is taken to be."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


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


def encoded(text: str) -> bytes:
    r"""Return a text in UTF-8; what stands in it for a byte of a file's name that is none as ``\udcff``."""
    return text.encode(errors="backslashreplace")


def readable(text: str) -> str:
    """Return a text as `encoded` writes it, for what cannot draw or keep anything else."""
    return encoded(text).decode()


def write_text(path: Path, text: str, *, lasting: bool = False) -> None:
    """Write a text, see `encoded`, as `write_atomically` does."""
    write_atomically(path, encoded(text), lasting=lasting)


@contextmanager
def as_asked(out: Path) -> Iterator[None]:
    """Write what a command was given ``--out`` for.

    Raises:
        BenchError: if it cannot be written; it says what to do.
    """
    try:
        yield
    except OSError as error:
        raise BenchError(f"cannot write {out}: {error.strerror or error}; choose another --out") from None


def refuse_unwritable(out: Path) -> None:
    """Find out before the work whether what a command was given ``--out`` for can be written.

    Raises:
        BenchError: if it cannot.
    """
    with as_asked(out), temporary(out) as part:
        part.touch()


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
