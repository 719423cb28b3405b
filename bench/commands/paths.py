"""The project's own packages are found before those of the same generic names in the user's folders."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from bench.commands.usage import PROGRAM
from bench.errors import BenchError

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the packages."""

NAMES = ("samplers", "models")
"""Packages beside ``bench`` whose names others use too."""


def own_packages_first() -> None:
    """Move the folders that hide the project's packages behind all others, for this process and its workers.

    ``python -m bench`` looks into the current folder first, and there may be a ``samplers.py`` of the user's.
    Whatever else such a folder holds is found as before.

    Raises:
        BenchError: if that does not help, naming the package and where it was found.
    """
    for name in NAMES:
        if _is_own(spec := importlib.util.find_spec(name)):
            continue
        hiding = [entry for entry in sys.path if _hides(entry, name)]
        sys.path[:] = [entry for entry in sys.path if entry not in hiding] + hiding
        if name in sys.modules or not _is_own(importlib.util.find_spec(name)):
            raise BenchError(
                f"the package {name!r} is found in {_place(spec)} and is not {PROGRAM}'s; give the command"
                f" `{PROGRAM}` in the place of `python -m bench`, or take that folder out of PYTHONPATH"
            )


def _place(spec: ModuleSpec | None) -> str:
    """Return where a package or module lies; ``no folder`` where it is not found at all."""
    if spec is None:
        return "no folder"
    return spec.origin or next(iter(spec.submodule_search_locations or ()), "no folder")


def _is_own(spec: ModuleSpec | None) -> bool:
    folders = spec.submodule_search_locations if spec is not None else None
    return any(Path(folder).resolve().parent == ROOT for folder in folders or ())


def _hides(entry: str, name: str) -> bool:
    """Return whether an entry of the path holds a package or module of that name that is not ours."""
    spec = PathFinder.find_spec(name, [entry])
    return spec is not None and not _is_own(spec)
