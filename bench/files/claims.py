"""Claims: files that one process at a time holds, whatever machines the processes run on.

A claim is a lock of the operating system on a file, taken through `filelock`. It ends with its process,
however that ends: what a dead process held is there for the next that asks. A file that nobody holds means
nothing.
"""

from __future__ import annotations

import errno
import functools
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

SUFFIX = ".lock"
"""How the names of claims' files end."""

WITHOUT_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What a file system answers that has no locks."""

TRIES = 20
"""Times that a folder is made again which another process takes away as empty in the same moment."""

LOOK = 0.1
"""Seconds between two looks at a claim that another process holds."""


@dataclass(frozen=True)
class Claim:
    """What is held until it is let go, or its process ends.

    Attributes:
        path: its file.
        lock: the lock on it; None where the file system has none.
    """

    path: Path
    lock: BaseFileLock | None

    def release(self) -> None:
        """Let it go, and take its file away."""
        if self.lock is not None:
            with suppress(OSError):  # where files that are open cannot be taken away
                self.path.unlink()
            self.lock.release()


def claim(path: Path) -> Claim | None:
    """Take a claim on a file, which is made with its folder, or return None where another process holds it.

    On a file system without locks every process gets it, with a warning: work may be done twice there.
    """
    # Another way to lock would outlive a process that is killed on another machine.
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    for _ in range(TRIES):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
            return Claim(path, lock)
        except Timeout:
            return None
        except FileNotFoundError:  # the folder was empty, and has just been taken away
            continue
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            _say_without_locks()
            return Claim(path, None)
    return None


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold a claim on a file, once the process that holds it lets it go."""
    while (mine := claim(path)) is None:
        time.sleep(LOOK)
    try:
        yield
    finally:
        mine.release()


def tidy(folder: Path) -> None:
    """Take away a folder that holds nothing but files of claims, with these.

    It is for work that is done: a process that holds one of them goes on, and nobody sees that it does.
    """
    with suppress(OSError):
        files = list(folder.iterdir())
        if all(file.suffix == SUFFIX for file in files):
            for file in files:
                file.unlink(missing_ok=True)
            folder.rmdir()
            folder.parent.rmdir()


@functools.cache
def _say_without_locks() -> None:
    warnings.warn(
        "the file system of the results has no locks: runs at the same time in one folder may do the same"
        " work twice; --shard I/N gives each its own part",
        stacklevel=2,
    )
