"""The exceptions a user can meet, each carrying one sentence that says what is wrong and what to do."""

from __future__ import annotations

import difflib
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


USERS_CODE = (Exception, SystemExit)
"""What a user's code may raise: an exit inside it must not end the program without a word."""


def sentence_of(error: BaseException) -> str:
    """Return what a user's code raised as a sentence."""
    if isinstance(error, SystemExit):
        return f"it called sys.exit({'' if error.code is None else repr(error.code)})"
    return str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
