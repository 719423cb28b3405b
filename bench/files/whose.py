"""Whose some code is: the project's, a library's, or a user's."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import inspect
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

PROJECT = frozenset({"bench", "samplers", "models"})
"""The project's import packages: their code counts definition by definition."""


ENTRY_POINTS = "sampler_bench"
"""Entry-point group of installed plugins: their packages count whole, those of libraries by their version."""


TENSORS = frozenset({"torch", "numpy"})
"""Libraries whose objects are data; a record names their versions."""


def module_of(part: Any) -> str:
    """Return the dotted name of the module that a part comes from, empty where it is unknown."""
    return str(part.__name__ if isinstance(part, ModuleType) else getattr(part, "__module__", None) or "")


def is_own(module: str) -> bool:
    """Return whether a module is the project's."""
    return module.partition(".")[0] in PROJECT


def may_be_users(module: str) -> bool:
    """Return whether a module may be a user's: not the project's, nor Python's, nor one of tensors."""
    top = module.partition(".")[0]
    return bool(top) and not is_own(module) and top not in sys.stdlib_module_names and top not in TENSORS


def users_file(part: Any) -> Path | None:
    """Return the file of a user or of a plugin's package that a part comes from, None for any other code."""
    module = module_of(part)
    if not may_be_users(module):
        return None
    own = getattr(sys.modules.get(module), "__file__", None)
    if own is None:
        try:
            own = inspect.getsourcefile(part)
        except TypeError:
            own = None
    if own is None:
        return None
    return Path(own) if _is_theirs(module, Path(own)) else None


def is_users_module(name: str) -> bool:
    """Return whether an import, which need not have been run yet, leads to a user's file."""
    top = name.partition(".")[0]
    spec = importlib.util.find_spec(top) if may_be_users(top) else None
    return spec is not None and spec.origin is not None and _is_theirs(top, Path(spec.origin))


def _is_theirs(module: str, file: Path) -> bool:
    """Return whether a module in a file is no library's; a plugin's package is none, wherever it lies."""
    library = any(file.is_relative_to(folder) for folder in _library_folders())
    return not library or module.partition(".")[0] in _plugin_packages()


@functools.cache
def _library_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple({Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


@functools.cache
def _plugin_packages() -> frozenset[str]:
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return frozenset(point.value.partition(":")[0].partition(".")[0] for point in points)
