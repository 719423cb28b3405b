"""Runs that are at work in a results folder: each says who it is, since when, and what it is at."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.files.atomic import write_atomically
from bench.files.claims import SUFFIX, Claim, claim

SAY_EVERY = 1.0
"""Seconds between two notes of what a run is at: a block of a small model takes less."""


@dataclass(frozen=True, order=True)
class Run:
    """A run at work, as it tells others; the one that began first comes first.

    Attributes:
        began: when it began, in seconds since 1970.
        host: name of its machine.
        pid: its process.
        rule: when it stops drawing, as on the command line; empty where every trial gets its n.
        trial: what it draws, for people; empty before its first block.
    """

    began: float
    host: str
    pid: int
    rule: str = ""
    trial: str = ""

    @classmethod
    def present(cls, rule: str) -> Run:
        """Return this process as it begins."""
        return cls(time.time(), socket.gethostname(), os.getpid(), rule)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Run:
        """Return the run that a file tells of.

        Raises:
            KeyError, TypeError, ValueError: if it tells of none.
        """
        host, rule, trial = (str(given[name]) for name in ("host", "rule", "trial"))
        return cls(float(given["began"]), host, int(given["pid"]), rule, trial)

    def __str__(self) -> str:
        at = f", at {self.trial}" if self.trial else ""
        since = datetime.fromtimestamp(self.began).astimezone().isoformat(" ", timespec="seconds")
        return f"process {self.pid} on {self.host}, since {since}{at}"


class Running:
    """The runs at work in a folder, this one among them while it is entered, if within itself.

    Args:
        folder: holds a file of each.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder  # of this run's file, once it is entered
        self._mine: Run | None = None
        self._held: Claim | None = None
        self._depth, self._said = 0, 0.0
        self.rule = ""

    def __enter__(self) -> Self:
        self._depth += 1
        if self._depth == 1:
            self._mine = Run.present(self.rule)
            name = f"{self._mine.host}-{self._mine.pid}-{secrets.token_hex(4)}.json"  # containers share both
            self._path = self._folder / name
            self._held = claim(self._path.with_suffix(SUFFIX))
            self._say()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0 and self._held is not None:
            self._path.unlink(missing_ok=True)
            self._held.release()
            self._mine, self._held = None, None
            with suppress(OSError):  # others are at work
                self._folder.rmdir()

    def tell(self, trial: str) -> None:
        """Tell others what this run is at, unless that was told a moment ago."""
        now = time.monotonic()
        if self._mine is None or self._mine.trial == trial or now - self._said < SAY_EVERY:
            return
        self._mine, self._said = replace(self._mine, trial=trial), now
        self._say()

    def others(self) -> list[Run]:
        """Return the other runs at work, the longest first; what a dead one left is taken away."""
        found = []
        for path in self._folder.glob("*.json"):
            if path == self._path:
                continue
            held = claim(path.with_suffix(SUFFIX))
            if held is not None:  # its process has ended
                path.unlink(missing_ok=True)
                held.release()
                continue
            with suppress(OSError, ValueError, KeyError, TypeError):
                found.append(Run.from_json(json.loads(path.read_text(encoding="utf-8"))))
        return sorted(found)

    def before(self) -> list[Run]:
        """Return the other runs at work that began before this one."""
        return [run for run in self.others() if self._mine is None or run < self._mine]

    def _say(self) -> None:
        assert self._mine is not None  # it was entered
        write_atomically(self._path, json.dumps(asdict(self._mine)).encode())
