"""A user's file imports what lies beside it, whatever other users' files have beside them.

A folder of such files stands as a package of its own, ``sampler_bench_folder_<hash>``. In its files an import
of a module that lies in the folder leads to a module of that package: two folders with a ``helper.py`` each
have two modules, where `sys.modules` has one place for the name. What is installed comes first, as if the
folder were the last on `sys.path`; of ``models`` and ``samplers``, names that this project takes, a folder's
own modules come first in its own files.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

PREFIX = "sampler_bench_folder_"

SHARED = ("samplers", "models")
"""The project's packages with names that users take too."""

_ROOT = Path(__file__).resolve().parents[2]


def open_folder(module: ModuleType, folder: Path) -> None:
    """Let the code of a module, which is about to run, import what lies in a folder, then and later."""
    name = _package_of(folder)
    importlib.invalidate_caches()
    # An import statement calls what the module's own built-ins have under this name.
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": functools.partial(_import, name, folder)}


def plain_name(text: str) -> str:
    """Return a text without the names of folders in it: modules are called what their files are."""
    return functools.reduce(lambda said, name: said.replace(f"{name}.", ""), _packages(), text)


def folder_of(module: str) -> Path | None:
    """Return the folder that a module stands in, None for one of no folder's package."""
    top = module.partition(".")[0]
    return Path(sys.modules[top].__path__[0]) if top.startswith(PREFIX) and top in sys.modules else None


def used_files(file: Path, folder: Path) -> list[Path]:
    """Return a file and all that it imports from a folder, directly or through others, sorted."""
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += _imported_files(one, folder)
    return sorted(found)


def _imported_files(file: Path, folder: Path) -> Iterator[Path]:
    place = file.relative_to(folder).with_suffix("").parts if file.is_relative_to(folder) else ()
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of(folder, alias.name, ())
        elif isinstance(node, ast.ImportFrom):
            above = place[: len(place) - node.level] if node.level else ()
            name = ".".join([*above, *([node.module] if node.module else [])])
            yield from _files_of(folder, name, [alias.name for alias in node.names])


def _files_of(folder: Path, name: str, attributes: Sequence[str]) -> Iterator[Path]:
    """Yield the files in a folder that an import runs: of packages on the way, and of modules named."""
    if name and not is_neighbour(folder, name, attributes):
        return
    parts = name.split(".") if name else []
    places = [folder.joinpath(*parts[: count + 1]) for count in range(len(parts))]
    places += [folder.joinpath(*parts, attribute) for attribute in attributes if attribute != "*"]
    for place in places:
        yield from (one for one in (place.with_suffix(".py"), place / "__init__.py") if one.is_file())


def is_neighbour(folder: Path, name: str, attributes: Iterable[str] = ()) -> bool:
    """Return whether an import in a folder's file leads into the folder: ``from name import attributes``."""
    top = name.partition(".")[0]
    if top in SHARED:
        if (folder / top).resolve() == _ROOT / top:
            return False
        place = folder.joinpath(*name.split("."))
        inside = [place / attribute for attribute in attributes]
        named = [place.with_suffix(".py"), place / "__init__.py"]
        named += [one.with_suffix(".py") for one in inside] + [one / "__init__.py" for one in inside]
        return any(one.is_file() for one in named)
    return PathFinder.find_spec(top, [str(folder)]) is not None and not _is_installed(top)


@functools.cache
def _is_installed(top: str) -> bool:
    """Return whether a module is found elsewhere than in users' folders and the one the program runs in."""
    if top == "bench" or top in sys.stdlib_module_names:
        return True
    elsewhere = [entry for entry in sys.path if entry not in ("", os.getcwd())]
    found = [
        PathFinder.find_spec(top, elsewhere) if finder is PathFinder else finder.find_spec(top, None)
        for finder in sys.meta_path
        if not isinstance(finder, _Finder | _LastFinder)
    ]
    # A folder without an __init__.py gives way to any module, wherever on the path.
    return any(spec is not None and spec.origin is not None for spec in found)


def _package_of(folder: Path) -> str:
    """Return the name of the package that a folder stands as, made at the first call."""
    name = PREFIX + hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
        sys.meta_path.append(_LastFinder())
    return name


def _import(
    package: str,
    folder: Path,
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] = (),
    level: int = 0,
) -> ModuleType:
    """Import as the built-in ``__import__`` does, a folder's own modules before others'."""
    if level or not is_neighbour(folder, name, fromlist or ()):
        return builtins.__import__(name, globals, locals, fromlist, level)
    found = builtins.__import__(f"{package}.{name}", globals, locals, fromlist, 0)
    return found if fromlist else sys.modules[f"{package}.{name.partition('.')[0]}"]


class _Finder(MetaPathFinder):
    """Finds the modules of folders' packages, and has them import from their folder too."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of a folder lies, None for other modules."""
        found = PathFinder.find_spec(fullname, path) if fullname.startswith(PREFIX) else None
        if found is not None and isinstance(found.loader, SourceFileLoader):
            found.loader = _Loader(fullname, found.loader.path)
        return found


class _LastFinder(MetaPathFinder):
    """Finds in users' folders what is found nowhere else, for pickles and others that know a name alone.

    It is no entry of `sys.path`, which worker processes are given, and would take for one of the user's own.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module lies in the first folder that has it."""
        if path is not None or fullname.startswith(PREFIX):
            return None
        return PathFinder.find_spec(fullname, [str(folder_of(name)) for name in _packages()])


def _packages() -> list[str]:
    """Return the names that folders have as packages, in the order in which they came."""
    return [name for name in list(sys.modules) if name.startswith(PREFIX) and "." not in name]


class _Loader(SourceFileLoader):
    """Runs a module of a folder; whoever imports it by its own name afterwards gets the same one."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        folder = folder_of(module.__name__)
        if folder is not None:
            open_folder(module, folder)
        super().exec_module(module)
        name = module.__name__.partition(".")[2]
        if name.partition(".")[0] not in SHARED:
            sys.modules.setdefault(name, module)
