"""The exceptions a user can meet, each carrying one sentence that says what is wrong and what to do."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


class BenchError(Exception):
    """Failed work: the command line prints the sentence and exits with status 1."""


class UsageError(BenchError, ValueError):
    """Something asked for that cannot be: the command line prints the sentence and exits with status 2."""


class UnknownNameError(UsageError):
    """A name nobody registered; the message offers the nearest known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
        super().__init__(f"unknown {kind} {name!r}; {hint}")


class NotApplicable(BenchError):  # noqa: N818  it is no error
    """A sampler cannot run on a model, through no fault of either: the trial is skipped, with the reason."""


def users_code() -> tuple[type[BaseException], ...]:
    """Return what ``except`` is to catch of a user's code: all that it raises but an interrupt.

    Exits and exceptions directly below BaseException are among it: none may end the program without a word.
    """
    kind = sys.exc_info()[0]
    return () if kind is None or issubclass(kind, KeyboardInterrupt) else (kind,)


def sentence_of(error: BaseException) -> str:
    """Return what a user's code raised as a sentence."""
    if isinstance(error, SystemExit):
        return f"it called sys.exit({'' if error.code is None else repr(error.code)})"
    return str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"


def one_line(text: str) -> str:
    """Return a sentence on one line; the colon goes where an exception says nothing after its name."""
    return " ".join(filter(None, map(str.strip, text.splitlines()))).rstrip(": ")
