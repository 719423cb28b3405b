"""Identify what lives in memory alone: functions and classes of a notebook's cell, and the values of objects.

Such code has no file to be read, so its compiled form counts: comments and the place of a definition change
nothing, another version of Python does. What it names counts with it: functions and classes of the notebook
with their own names in turn, and every value. Of a user's file the code counts by `bench.files.source`; what
its functions and classes hold and name is a value as any other, which the running program may have changed.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib
import inspect
import logging
import pickle
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path, PurePath
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import users_code
from bench.files.tensors import tensor_bytes
from bench.files.whose import is_users_module, users_file

HEAP_TYPE = 1 << 9
"""The flag of a class that a statement made, and not the interpreter."""

TORCHS_OWN = frozenset(vars(nn.Module())) - {"_parameters", "_buffers", "_modules"}
"""Attributes of every network that hold no part of what it computes, but for hooks where it has any."""

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
"""Attributes of every network that hold functions which change what it computes, by meaningless numbers."""

NO_VALUES = frozenset(
    {
        *("__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__"),
        "__slotnames__",  # written down by whoever copies or pickles an instance
    }
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


def is_users(part: object) -> bool:
    """Return whether a function or class is a user's, in a file of theirs or in none."""
    return is_live(part) or users_file(part) is not None


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


def code_text(code: CodeType) -> str:
    """Return compiled code as text, the same wherever in its file it stands."""
    return f"{code.co_name} {_Reader().text(code)}"


def codes_in(source: bytes, file: Path) -> set[str]:
    """Return the code of every function in a source as text; none where it cannot be compiled."""
    try:
        return set(map(code_text, _nested(compile(source, str(file), "exec", dont_inherit=True))))
    except (SyntaxError, ValueError):
        return set()


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
        plain = value is None or isinstance(value, bool | int | float | complex | str | bytes)
        written = f"{type(value).__name__} {value!r}" if plain else ""
        if plain and (isinstance(value, Enum) or not _attributes(value)):
            return written
        if id(value) in self._seen:
            return f"#{self._seen[id(value)][0]}"
        self._seen[id(value)] = len(self._seen), value  # kept alive, so that no other object gets its id
        return f"{written or type(value).__name__}({', '.join(self._parts(value))})"

    def _parts(self, value: Any) -> Iterator[str]:
        """Yield what an object is made of."""
        named = _attributes(value)
        for kind, parts in self._KINDS:
            if isinstance(value, kind):
                yield from parts(self, value)
                if kind not in _WHOLE:
                    yield from [self.text(type(value))] if is_users(type(value)) else []
                    yield from self._named(named)
                return
        yield self.text(type(value))
        yield from self._named(named)
        if not named:
            yield from self._opaque(value)

    def _named(self, attributes: list[tuple[str, Any]]) -> Iterator[str]:
        for name, one in attributes:
            yield f"{name}={self.text(one)}"

    def _opaque(self, value: object) -> Iterator[str]:
        """Yield what an object without attributes is, as far as it can be written down."""
        try:
            yield _digest(pickle.dumps(value))
            return
        except users_code():  # it holds what has no name, such as a lambda
            pass
        try:
            how = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        except users_code():
            return
        for part in () if isinstance(how, str) else how:
            yield self.text(list(part) if isinstance(part, Iterator) else part)

    def _tensor(self, value: Tensor) -> Iterator[str]:
        yield _digest(b"".join(tensor_bytes([("", value)])))

    def _array(self, value: np.ndarray[Any, Any]) -> Iterator[str]:
        yield f"{value.dtype} {value.shape}"
        yield (
            repr(value.tolist()) if value.dtype == object else _digest(np.ascontiguousarray(value).tobytes())
        )

    def _function(self, function: FunctionType) -> Iterator[str]:
        if is_live(function):
            yield self.text(function.__code__)
            yield from map(self.text, _imports_of(function.__code__))
        else:
            yield self._of_file(function)
        yield from map(self.text, held_by(function))
        if is_users(function):
            yield from self._named(list(_globals_of(function.__code__, function.__globals__)))

    def _class(self, one: type) -> Iterator[str]:
        if not is_live(one):
            yield self._of_file(one)
        if is_users(one):
            yield from map(self.text, one.__bases__)
            yield from self._named(_in_class(one))

    def _of_file(self, one: Any) -> str:
        self.named.append(one)
        return f"{one.__module__}.{one.__qualname__}"

    def _module(self, module: ModuleType) -> Iterator[str]:
        self.named.append(module)
        yield module.__name__

    def _code(self, code: CodeType) -> Iterator[str]:
        yield code.co_code.hex()
        yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_flags, code.co_argcount))
        yield from map(self.text, code.co_consts)

    def _mapping(self, value: Mapping[Any, Any]) -> Iterator[str]:
        for key, one in value.items():
            yield f"{self.text(key)}: {self.text(one)}"

    def _set(self, value: set[Any] | frozenset[Any]) -> Iterator[str]:
        yield from map(self.text, sorted(value, key=self._alone))

    def _alone(self, value: object) -> str:
        """Return an object as text that says nothing of its place among others: what a set is sorted by."""
        apart = _Reader()
        apart._seen = dict(self._seen)
        return apart.text(value)

    def _path(self, value: PurePath) -> Iterator[str]:
        yield str(value)  # its attributes are kept by Python, and come as they are asked for

    def _script(self, value: torch.jit.ScriptModule) -> Iterator[str]:
        graph: Any = value.inlined_graph
        yield re.sub(r"___torch_mangle_\d+\.", "", graph.str(False))  # without lines of files
        yield from map(self.text, value.state_dict().items())

    def _logger(self, value: logging.Logger) -> Iterator[str]:
        yield value.name  # it holds every logger and stream of the process, and changes nothing

    def _method(self, value: MethodType) -> Iterator[str]:
        yield from map(self.text, (value.__func__, value.__self__))

    def _wrapped(self, value: Any) -> Iterator[str]:
        yield from map(self.text, code_parts(value))

    def _partial(self, value: functools.partial[Any]) -> Iterator[str]:
        yield from map(self.text, (value.func, value.args, value.keywords))

    def _sequence(self, value: list[Any] | tuple[Any, ...] | deque[Any]) -> Iterator[str]:
        yield from map(self.text, value)

    _KINDS: tuple[tuple[Any, Callable[[Any, Any], Iterator[str]]], ...] = (
        (logging.Logger, _logger),
        (PurePath, _path),
        (torch.jit.ScriptModule, _script),
        (Tensor, _tensor),
        (np.ndarray, _array),
        (FunctionType, _function),
        (type, _class),
        (ModuleType, _module),
        (CodeType, _code),
        (Mapping, _mapping),
        (set | frozenset, _set),
        (list | tuple | deque, _sequence),
        (MethodType, _method),
        (staticmethod | classmethod | property, _wrapped),
        (functools.partial, _partial),
    )


_WHOLE = (logging.Logger, PurePath, torch.jit.ScriptModule, FunctionType, type, ModuleType)
"""Kinds whose parts say all: their attributes are none of the user's, or among the parts."""


def held_by(function: FunctionType) -> tuple[object, ...]:
    """Return what a function holds: defaults, those of keywords, what it closes over, and attributes."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if is_filled(cell)]
    return function.__defaults__, function.__kwdefaults__, cells, vars(function)


def is_filled(cell: CellType) -> bool:
    """Return whether a cell that a function closes over holds something yet."""
    try:
        cell.cell_contents  # noqa: B018 - an empty cell raises
    except ValueError:
        return False
    return True


def attributes(value: Any) -> dict[str, Any]:
    """Return all attributes of an instance by name, those in slots too."""
    named = dict(getattr(value, "__dict__", {}))
    for one in type(value).__mro__:
        slots = vars(one).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            private = slot.startswith("__") and not slot.endswith("__")
            name = f"_{one.__name__.lstrip('_')}{slot}" if private else slot
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                named[name] = getattr(value, name)
    return named


def _attributes(value: Any) -> list[tuple[str, Any]]:
    """Return the attributes of an instance by name, without what is only kept to save computing it again."""
    if type(value) in (Tensor, nn.Parameter):
        return []  # what torch marks them with as it compiles
    named = attributes(value)
    if isinstance(value, nn.Module):
        hooks = {name: list(named[name].values()) for name in HOOKS if named.get(name)}
        named = {name: one for name, one in named.items() if name not in TORCHS_OWN} | hooks
    return [
        (name, one)
        for name, one in sorted(named.items())
        if not isinstance(inspect.getattr_static(type(value), name, None), functools.cached_property)
    ]


def code_parts(part: object) -> tuple[object, ...]:
    """Return the functions that what stands in a class is made of: of a property, or a static method."""
    if isinstance(part, staticmethod | classmethod):
        return (part.__func__,)
    return (part.fget, part.fset) if isinstance(part, property) else ()


def named_by(part: FunctionType | type) -> list[object]:
    """Return the values of the globals that a function names; of a class its bases and attributes."""
    if isinstance(part, FunctionType):
        return [value for _, value in _globals_of(part.__code__, part.__globals__)]
    return [*part.__bases__, *(value for _, value in _in_class(part))]


def _in_class(one: type) -> list[tuple[str, Any]]:
    """Return the attributes of a class that say what it does, methods among them."""
    return [
        (name, value)
        for name, value in sorted(vars(one).items())
        if name not in NO_VALUES and not name.startswith("__annot")
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


def _imports_of(code: CodeType) -> Iterator[ModuleType]:
    """Yield the users' modules that code imports as it is run; what it would do without is left out."""
    steps = (step for one in _nested(code) for step in dis.get_instructions(one))
    for name in sorted({str(step.argval) for step in steps if step.opname == "IMPORT_NAME"}):
        try:
            if is_users_module(name):
                yield importlib.import_module(name)  # noqa: TID251 - the user's own import, some lines early
        except users_code():
            continue


def _nested(code: CodeType) -> Iterator[CodeType]:
    """Yield code and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
