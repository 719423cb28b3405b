"""``--config FILE.toml``: the options of a command in a file; those on the command line win.

A key is an option's long name, with ``-`` or ``_``. A list stands for commas and for several values alike::

    samplers = ["ddim", "dpmpp-2m"]
    steps = [10, 20]
    n = 2000
    strict = true

Paths are read as on the command line: from the folder where the command is given.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.commands.parser import Parser, nearest
from bench.commands.usage import batch_size
from bench.errors import BenchError, UsageError
from bench.files.atomic import readable, write_text
from bench.files.toml import read_toml

APART = ("help", "config", "save_config", "verbose", "quiet", "json", "dry_run")
"""Options that say how this command is given, and not what it is about."""

KINDS: Mapping[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    Path: ((str,), "a path in quotes"),
    batch_size: ((int, str), 'a whole number or "auto"'),
    None: ((str, int, float), "text in quotes or a number"),
}
"""What TOML may hold for an option of a type, and how a message says so."""


def parse_options(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of a command line, and those of the ``--config`` file that it leaves open.

    Raises:
        UsageError: for a file that cannot be read, a key or value that is no option's.
    """
    options: argparse.Namespace = parser.parse_args(arguments)
    path: Path | None = getattr(options, "config", None)
    if path is None:
        return options
    given = given_options(parser, arguments)
    taken = given | {other for name in given for other in _rivals(parser, name)}
    values = read_values(parser, path)
    for name in set(values) - taken:
        setattr(options, name, values[name])
    for name in values:
        if chosen := [other for other in _rivals(parser, name) if other in values]:
            raise UsageError(f"{path}: {_key(name)} and {_key(chosen[0])} exclude each other; leave one out")
    return options


def given_options(parser: Parser, arguments: Sequence[str]) -> set[str]:
    """Return the names of the options that a command line gives itself."""
    blank = argparse.Namespace(**{action.dest: None for action in parser._actions})
    found = parser.parse_args(arguments, blank)
    return {name for name, value in vars(found).items() if value not in (None, [])}


def read_values(parser: Parser, path: Path) -> dict[str, Any]:
    """Return the options that a TOML file holds, by name, as the parser would have made them.

    Raises:
        UsageError: if the file is not there or no TOML, or a key or value is no option's.
    """
    held = read_toml(path, "config")
    known = _known(parser)
    values: dict[str, Any] = {}
    for key, value in held.items():
        action = known.get(key.replace("_", "-"))
        if action is None:
            near = nearest(key.replace("_", "-"), known)
            hint = f"did you mean {near}?" if near else f"see `{parser.prog} --help`"
            raise UsageError(f"config {path}: unknown key {key!r}; {hint}")
        if action.dest in values:
            raise UsageError(f"config {path}: {_key(action.dest)} is given twice")
        try:
            values[action.dest] = _made(action, value)
        except UsageError as error:
            raise UsageError(f"config {path}: {key} {error}") from None
    return values


def save_config(parser: Parser, options: argparse.Namespace, path: Path) -> None:
    """Write the options that are not the defaults as TOML; :func:`read_values` gives them back.

    Raises:
        UsageError: if a file of another content is there, or an option is no text that TOML can hold.
        BenchError: if it cannot be written.
    """
    lines = {key: f"{key} = {_toml(value)}\n" for key, value in chosen_options(parser, options)}
    for key, line in lines.items():
        if readable(line) != line:
            raise UsageError(f"--{key} holds bytes that are no UTF-8, as TOML is: leave --save-config out")
    text = "".join(lines.values())
    try:
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise UsageError(f"{path} is there and holds other options; give --save-config another name")
        write_text(path, text)
    except OSError as error:
        raise BenchError(f"{path} cannot be written: {error.strerror}") from None


def chosen_options(parser: Parser, options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Yield (key, value) of every option that differs from its default, in the order of ``--help``."""
    for key, action in dict.fromkeys((_key(a.dest, parser), a) for a in _known(parser).values()):
        value = getattr(options, action.dest)
        if value != action.default:
            yield key, value


def chosen_arguments(parser: Parser, options: argparse.Namespace) -> Iterator[str]:
    """Yield the arguments of the command line that gives every option that differs from its default."""
    for key, value in chosen_options(parser, options):
        if isinstance(value, bool):
            yield f"--{key}" if value else f"--no-{key}"
            continue
        repeated = isinstance(_known(parser)[key], argparse._AppendAction)
        for values in (
            ([one] for one in value) if repeated else [value if isinstance(value, list) else [value]]
        ):
            yield from (f"--{key}", *map(str, values))


def _known(parser: Parser) -> dict[str, argparse.Action]:
    """Return the options that a file may hold, by each of their long names."""
    return {
        name.removeprefix("--"): action
        for action in parser._actions
        for name in action.option_strings
        if name.startswith("--") and not name.startswith("--no-") and action.dest not in APART
    }


def _key(name: str, parser: Parser | None = None) -> str:
    """Return the key of an option: the first of its long names."""
    actions = [] if parser is None else [action for action in parser._actions if action.dest == name]
    names = [one for action in actions for one in action.option_strings if one.startswith("--")]
    return names[0].removeprefix("--") if names else name.replace("_", "-")


def _rivals(parser: Parser, name: str) -> list[str]:
    """Return the options that cannot be given together with one."""
    groups = [[a.dest for a in group._group_actions] for group in parser._mutually_exclusive_groups]
    return [other for group in groups if name in group for other in group if other != name]


def _made(action: argparse.Action, value: Any) -> Any:
    """Return a TOML value as an option has it.

    Raises:
        UsageError: the end of a sentence about the key, if it is of another type or none of the choices.
    """
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            raise UsageError(f"must be true or false, got {value!r}")
        return value
    items = value if isinstance(value, list) else [value]
    several = action.nargs == "+" or isinstance(action, argparse._AppendAction)
    listed = ",..." in str(action.metavar)
    if not items or (isinstance(value, list) and not several and not listed):
        raise UsageError(f"must be {_words(action)}, got {value!r}")
    made = [_one(action, item) for item in items]
    if several:
        return made
    return ",".join(map(str, made)) if listed else made[0]


def _one(action: argparse.Action, value: Any) -> Any:
    kind: Any = action.type
    if isinstance(value, bool) or not isinstance(value, KINDS[kind][0]) or "\0" in str(value):
        raise UsageError(f"must be {_words(action)}, got {value!r}")
    if isinstance(value, str) and not value.strip():
        raise UsageError("is given nothing; leave it out or give a value")
    try:
        made = kind(value) if kind is not None else str(value)
    except (argparse.ArgumentTypeError, OverflowError):
        raise UsageError(f"must be {_words(action)}, got {value!r}") from None
    if action.choices is not None and made not in action.choices:
        near = nearest(str(made), map(str, action.choices))
        hint = f"did you mean {near}?" if near else f"known: {', '.join(map(str, action.choices))}"
        raise UsageError(f"cannot be {made!r}; {hint}")
    return made


def _words(action: argparse.Action) -> str:
    kind: Any = action.type
    return KINDS[kind][1]


def _toml(value: Any) -> str:
    """Return a value of an option in TOML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    # A JSON string is a TOML string but for the one control character that JSON lets stand.
    return re.sub("\x7f", r"\\u007f", json.dumps(str(value), ensure_ascii=False))
