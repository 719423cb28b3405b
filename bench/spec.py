"""The text form of a choice: ``NAME:key=value,...``, as the command line takes it and records keep it."""

from __future__ import annotations

import re

from bench.errors import UsageError

_OPTIONS = re.compile(r"(?P<name>.+?):(?P<options>[\w-]+=.*)", re.DOTALL)


def split_spec(spec: str) -> tuple[str, str]:
    """Return (name, options as text) of ``NAME:key=value,...``; no options where no colon precedes a key.

    A name may hold colons itself: ``mine.py:make:guidance=3`` is ``mine.py:make`` with an option.
    """
    found = _OPTIONS.fullmatch(spec)
    return (found["name"], found["options"]) if found else (spec, "")


def parse_options(options: str, what: str) -> dict[str, str]:
    """Return the options of ``key=value,...`` as text by name.

    What has no ``=`` continues the value before it: ``channel_mult=1,2,2,num_heads=2`` has two options.

    Args:
        options: the text; empty for none.
        what: whose options they are, for messages.

    Raises:
        UsageError: if the text does not begin with ``key=value``.
    """
    found: dict[str, str] = {}
    key = ""
    for item in options.split(",") if options else ():
        name, equals, value = item.partition("=")
        if equals:
            key = name.strip()
            found[key] = value.strip()
        elif key:
            found[key] += f",{item.strip()}"
        else:
            raise UsageError(f"{what}: expected key=value after the colon, got {item!r}")
    return found


def refuse_repeated(options: str, what: str) -> None:
    """Raise UsageError where ``key=value,...`` has a key twice: one of the values would be passed over.

    Args:
        options: the text; empty for none.
        what: whose options they are, for the message.
    """
    keys = [item.partition("=")[0].strip().replace("-", "_") for item in options.split(",") if "=" in item]
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"{what}: {key} is given {keys.count(key)} times; give it once")


def join_spec(name: str, options: dict[str, str]) -> str:
    """Return ``NAME:key=value,...``, or the name alone where there are no options."""
    given = ",".join(f"{key}={value}" for key, value in options.items())
    return f"{name}:{given}" if given else name


def is_number(text: str) -> bool:
    """Return whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
