"""How much a command says: ``-q`` leaves results, warnings and errors, ``-v`` tells how they came about."""

from __future__ import annotations

import sys
from enum import IntEnum


class Verbosity(IntEnum):
    """How much is said on standard error."""

    QUIET = -1
    NORMAL = 0
    VERBOSE = 1


_verbosity = Verbosity.NORMAL


def set_verbosity(verbosity: Verbosity) -> None:
    """Set how much the process says from now on."""
    global _verbosity
    _verbosity = verbosity


def is_quiet() -> bool:
    """Return whether progress and remarks are unwanted."""
    return _verbosity == Verbosity.QUIET


def is_verbose() -> bool:
    """Return whether more than progress is wanted."""
    return _verbosity == Verbosity.VERBOSE


def say(remark: object) -> None:
    """Print a remark on what is under way to standard error, unless that is unwanted."""
    if not is_quiet():
        print(remark, file=sys.stderr, flush=True)


def detail(remark: object) -> None:
    """Print to standard error what only ``-v`` asks for."""
    if is_verbose():
        print(remark, file=sys.stderr, flush=True)
