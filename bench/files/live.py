"""Identify what lives in memory alone: functions and classes of a notebook's cell, and the values of objects.

Such code has no file to be read, so its compiled form counts: comments and the place of a definition change
nothing, another version of Python does. What it names counts with it: functions and classes of the notebook
with their own names in turn, and every value.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from bench.errors import users_code
from bench.files.tensors import tensor_bytes

HEAP_TYPE = 1 << 9
"""The flag of a class that a statement made, and not the interpreter."""

TORCHS_OWN = frozenset(vars(nn.Module())) - {"_parameters", "_buffers", "_modules"}
"""Attributes of every network that hold no part of what it computes."""

NO_VALUES = frozenset(
    {"__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__"}
)
"""Attributes of every class that say nothing of what it does."""


def is_live(part: object) -> bool:
    """Return whether a function or class has no file of its own: the running program defined it.

    What a script defines counts as live too: it is the program that asks, and no plugin.
    """
    if not isinstance(part, FunctionType | type):
        return False
    module = str(getattr(part, "__module__", None) or "builtins")
    if module == "__main__":
        return True
    if module != "builtins" and module in sys.modules:
        return False
    if isinstance(part, FunctionType):
        return not Path(part.__code__.co_filename).is_file()
    return bool(part.__flags__ & HEAP_TYPE)


def read_live(part: object) -> tuple[str, list[object]]:
    """Return (digest of a live function or class, the functions, classes and modules of files it names)."""
    reader = _Reader()
    text = reader.text(part)
    return hashlib.sha256(text.encode()).hexdigest(), reader.named


def values_hash(*objects: object) -> str:
    """Return a hash of all that some objects hold: numbers, texts, tensors, live code; 16 hex digits.

    Code of files is not read: `bench.files.source.code_hash` does.
    """
    reader = _Reader()
    return hashlib.sha256("\n".join(map(reader.text, objects)).encode()).hexdigest()[:16]


class _Reader:
    """Turns objects into text that is equal where they are.

    Attributes:
        named: functions, classes and modules of files that were met on the way.
    """

    def __init__(self) -> None:
        self.named: list[object] = []
        self._seen: dict[int, tuple[int, object]] = {}

    def text(self, value: Any) -> str:
        """Return an object as text; one that was met before by its number."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return f"{type(value).__name__} {value!r}"
        if id(value) in self._seen:
            return f"#{self._seen[id(value)][0]}"
        self._seen[id(value)] = len(self._seen), value  # kept alive, so that no other object gets its id
        return f"{type(value).__name__}({', '.join(self._parts(value))})"

    def _parts(self, value: Any) -> Iterator[str]:
        """Yield what an object is made of."""
        for kind, parts in self._KINDS:
            if isinstance(value, kind):
                yield from parts(self, value)
                return
        yield self.text(type(value))
        attributes = _attributes(value)
        for name, one in attributes:
            yield f"{name}={self.text(one)}"
        if not attributes:
            yield _opaque(value)

    def _tensor(self, value: Tensor) -> Iterator[str]:
        yield _digest(b"".join(tensor_bytes([("", value)])))

    def _array(self, value: np.ndarray[Any, Any]) -> Iterator[str]:
        yield f"{value.dtype} {value.shape}"
        yield (
            repr(value.tolist()) if value.dtype == object else _digest(np.ascontiguousarray(value).tobytes())
        )

    def _function(self, function: FunctionType) -> Iterator[str]:
        yield from self._definition(function, lambda: self._of_function(function))

    def _class(self, one: type) -> Iterator[str]:
        yield from self._definition(one, lambda: self._of_class(one))

    def _definition(self, one: Any, inside: Callable[[], Iterator[str]]) -> Iterator[str]:
        """Yield what a live definition is made of; of one in a file its name, and what a function holds."""
        if is_live(one):
            yield from inside()
            return
        self.named.append(one)
        yield f"{one.__module__}.{one.__qualname__}"
        if isinstance(one, FunctionType):
            yield from self._held(one)

    def _module(self, module: ModuleType) -> Iterator[str]:
        self.named.append(module)
        yield module.__name__

    def _held(self, function: FunctionType) -> Iterator[str]:
        """Yield what a function holds: defaults, what it closes over, and attributes."""
        cells = [cell.cell_contents for cell in function.__closure__ or () if is_filled(cell)]
        for held in (function.__defaults__, function.__kwdefaults__, cells, vars(function)):
            yield self.text(held)

    def _of_function(self, function: FunctionType) -> Iterator[str]:
        yield self.text(function.__code__)
        yield from self._held(function)
        for name, value in _globals_of(function.__code__, function.__globals__):
            yield f"{name}={self.text(value)}"

    def _of_class(self, one: type) -> Iterator[str]:
        yield from map(self.text, one.__bases__)
        for name, value in sorted(vars(one).items()):
            if name not in NO_VALUES and not name.startswith("__annot"):
                yield f"{name}={self.text(value)}"

    def _code(self, code: CodeType) -> Iterator[str]:
        yield code.co_code.hex()
        yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_flags, code.co_argcount))
        yield from map(self.text, code.co_consts)

    def _mapping(self, value: Mapping[Any, Any]) -> Iterator[str]:
        for key, one in value.items():
            yield f"{self.text(key)}: {self.text(one)}"

    def _set(self, value: set[Any] | frozenset[Any]) -> Iterator[str]:
        yield from sorted(map(self.text, value))

    def _method(self, value: MethodType) -> Iterator[str]:
        yield from map(self.text, (value.__func__, value.__self__))

    def _wrapped(self, value: Any) -> Iterator[str]:
        yield self.text(value.__func__)

    def _property(self, value: property) -> Iterator[str]:
        yield from map(self.text, (value.fget, value.fset))

    def _partial(self, value: functools.partial[Any]) -> Iterator[str]:
        yield from map(self.text, (value.func, value.args, value.keywords))

    def _sequence(self, value: list[Any] | tuple[Any, ...]) -> Iterator[str]:
        yield from map(self.text, value)

    _KINDS: tuple[tuple[Any, Callable[[Any, Any], Iterator[str]]], ...] = (
        (Tensor, _tensor),
        (np.ndarray, _array),
        (FunctionType, _function),
        (type, _class),
        (ModuleType, _module),
        (CodeType, _code),
        (Mapping, _mapping),
        (set | frozenset, _set),
        (list | tuple, _sequence),
        (MethodType, _method),
        (staticmethod | classmethod, _wrapped),
        (property, _property),
        (functools.partial, _partial),
    )


def is_filled(cell: CellType) -> bool:
    """Return whether a cell that a function closes over holds something yet."""
    try:
        cell.cell_contents  # noqa: B018 - an empty cell raises
    except ValueError:
        return False
    return True


def _opaque(value: object) -> str:
    """Return what an object without attributes is, as far as it can be written down."""
    try:
        return _digest(pickle.dumps(value))
    except users_code():
        return ""


def _attributes(value: Any) -> list[tuple[str, Any]]:
    """Return the attributes of an instance by name, without what is only kept to save computing it again."""
    named = dict(getattr(value, "__dict__", {}))
    for one in type(value).__mro__:
        slots = vars(one).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                named[name] = getattr(value, name)
    left_out = TORCHS_OWN if isinstance(value, nn.Module) else frozenset[str]()
    return [
        (name, one)
        for name, one in sorted(named.items())
        if name not in left_out
        and not isinstance(inspect.getattr_static(type(value), name, None), functools.cached_property)
    ]


def _globals_of(code: CodeType, namespace: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the global names that code reads with what they stand for, each once, attributes of modules too.

    ``np.pi`` is that number and not the whole of numpy. A name that stands for nothing yet is left out.
    """
    found: dict[str, Any] = {}
    for one in _nested(code):
        value: Any = None
        name = ""
        for step in dis.get_instructions(one):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in namespace:
                name, value = str(step.argval), namespace[step.argval]
            elif step.opname in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(value, ModuleType):
                name, value = f"{name}.{step.argval}", getattr(value, str(step.argval), None)
            else:
                if name:
                    found[name] = value
                name, value = "", None
        if name:
            found[name] = value
    yield from sorted(found.items())


def _nested(code: CodeType) -> Iterator[CodeType]:
    """Yield code and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
