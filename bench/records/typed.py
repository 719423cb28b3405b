"""Whether what was read from a file is of the types that its class declares: a record is anybody's file."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

LARGEST = 2**64
"""Whole numbers are below it: greater ones are no count, size or seed, and no float either."""


def check_fields(made: Any, where: str = "") -> None:
    """Raise ValueError where a field of a dataclass, or of one in it, is not of its declared type.

    A ``float`` may be a whole number or NaN, and no infinity; ``Any`` is anything.

    Args:
        made: an instance of a dataclass.
        where: begins the names in the message.
    """
    own: Any = type(made)
    for name, kind in _hints(own).items():
        value = getattr(made, name)
        if dataclasses.is_dataclass(value):
            check_fields(value, f"{where}{name}.")
        elif not fits(value, kind):
            raise ValueError(f"{where}{name} is {value!r:.40}")


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def fits(value: object, kind: Any) -> bool:
    """Return whether a value is of a declared type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin in (tuple, Sequence):
        return isinstance(value, list | tuple) and all(fits(one, inner[0]) for one in value)
    if origin is Mapping:
        pairs = value.items() if isinstance(value, Mapping) else None
        return pairs is not None and all(isinstance(n, str) and fits(one, inner[1]) for n, one in pairs)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, kind):
        check_fields(value)
        return True
    return kind is Any or _is_plain(value, kind)


def _is_plain(value: object, kind: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, int):
        return kind in (int, float) and abs(value) < LARGEST
    if isinstance(value, float):
        return kind is float and not math.isinf(value)
    return (value is None and kind is type(None)) or (isinstance(value, str) and kind is str)
