"""Arguments of Python functions as the options of a verb: declared, checked and refused in one place."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench.commands.parser import command_parser
from bench.errors import UnknownNameError, UsageError

NOT_IN_PYTHON = frozenset({"help", "json", "dry_run", "quiet", "verbose", "config", "save_config", "threads"})
"""Options that say what a command prints, where its options are, or how its process is set up."""


def options_of(verb: str, arguments: Mapping[str, Any]) -> tuple[argparse.Namespace, list[str]]:
    """Return (the options of a verb as its command has them, the words of that command).

    Args:
        verb: the verb.
        arguments: values by the options' names with underscores; None leaves an option out. Lists stand for
            what has several words, or commas between.

    Raises:
        UsageError: if there is no such option, or a value is not what it takes.
    """
    parser = command_parser(verb)
    known = {name: action for name, action in parser.named().items() if name not in NOT_IN_PYTHON}
    words: list[str] = []
    for name, value in arguments.items():
        if name not in known:
            raise UnknownNameError(f"argument of {verb}", name, known)
        if value is not None:
            words += _words(name, known[name], value)
    return parser.parse_args(words), words


def _words(name: str, action: argparse.Action, value: Any) -> Iterator[str]:
    """Yield an option with its value as a command line has them."""
    option = f"--{name.replace('_', '-')}"
    if isinstance(action, argparse.BooleanOptionalAction):
        yield option if value else f"--no-{name.replace('_', '-')}"
    elif action.nargs == 0:
        yield from [option] if value else []
    elif action.nargs == "+":
        for one in _each(value):
            if one.startswith("-"):
                raise UsageError(f"argument {option}: {one!r} is no name: it begins as an option does")
        yield from (option, *_each(value))
    elif isinstance(action.default, list):  # one that can be given several times
        yield from (word for one in _each(value) for word in _option(option, one))
    else:
        text = ",".join(_each(value))
        if not text:
            raise UsageError(f"argument {option}: it is empty; leave it out for what it is by default")
        yield from _option(option, text)


def _option(option: str, value: str) -> tuple[str, ...]:
    """Return an option with its value in words, in one word where the value begins as an option does."""
    return (f"{option}={value}",) if value.startswith("-") else (option, value)


def _each(value: Any) -> list[str]:
    if hasattr(value, "tolist"):  # an array or a tensor, of one number or several
        value = value.tolist()
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return [str(one) for one in value] if several else [str(value)]
