"""Every verb of the command line with its options, in Markdown, from the parsers themselves."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from bench.commands.parser import command_parser
from bench.commands.usage import VERBS


def reference() -> str:
    """Return a section for every verb: what it does, how it is called, what each argument means."""
    return "\n".join(line for verb in VERBS for line in _section(verb)) + "\n"


def _section(verb: str) -> Iterator[str]:
    parser = command_parser(verb)
    usage = re.sub(r"\s+", " ", parser.format_usage().removeprefix("usage: "))
    yield from [
        f"### {verb}",
        "",
        _prose(parser.description or ""),
        "",
        "```text",
        _wrapped(usage),
        "```",
        "",
    ]
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    if actions:
        yield from ["| argument | meaning |", "|---|---|", *map(_row, actions), ""]


def _row(action: argparse.Action) -> str:
    value = _value(action)
    names = [f"{name} {value}".strip() for name in action.option_strings] or [value]
    text = (action.help or "") % {"default": action.default, "prog": ""}
    return f"| {', '.join(f'`{name}`' for name in names)} | {_cell(_prose(text))} |"


def _value(action: argparse.Action) -> str:
    """Return what stands for an argument's value, as the usage shows it."""
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        return ""
    name = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest)
    name = name if isinstance(name, str) else " ".join(name)
    many = f"[{name} ...]"
    shown = {"+": f"{name} {many}", "*": many, "?": f"[{name}]"}.get(str(action.nargs), name)
    return shown if not action.option_strings or action.metavar or action.choices else shown.upper()


def _prose(text: str) -> str:
    """Mark the options in a text as code, outside of what is marked already or indented."""
    lines = (line if line.startswith("    ") else _marked(line) for line in text.splitlines())
    return "\n".join(lines)


def _marked(line: str) -> str:
    parts = re.split(r"(`+[^`]*`+)", line)
    return "".join(
        part if part.startswith("`") else re.sub(r"(?<![\w`-])(--[a-z][\w-]*)", r"`\1`", part)
        for part in parts
    )


def _cell(text: str) -> str:
    """Return a text for a cell of a table: a bar outside of code would begin another cell."""
    parts = re.split(r"(`+[^`]*`+)", text.replace("\n", " "))
    return "".join(part if part.startswith("`") else part.replace("|", "\\|") for part in parts)


def _wrapped(usage: str, width: int = 88) -> str:
    """Break a usage between its arguments, the later lines indented."""
    lines, line = [], ""
    for word in _words(usage):
        if line.strip() and len(line) + len(word) >= width:
            lines.append(line)
            line = "   "
        line = f"{line} {word}" if line else word
    return "\n".join([*lines, line])


def _words(usage: str) -> list[str]:
    """Split at the spaces that stand in no bracket."""
    words, depth = [""], 0
    for letter in usage:
        depth += (letter in "[{(") - (letter in "]})")
        if letter == " " and depth == 0:
            words.append("")
        else:
            words[-1] += letter
    return words
