"""Named things of one kind, and which plugin each came from."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from bench.errors import UnknownNameError, UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Origin:
    """Where an entry came from.

    Attributes:
        plugin: distribution, module or file name.
        version: the version of the distribution; empty where there is none.
    """

    plugin: str
    version: str


def own_version() -> str:
    """Return the installed version, empty in a bare checkout."""
    try:
        return importlib.metadata.version("sampler-bench")
    except importlib.metadata.PackageNotFoundError:
        return ""


@dataclass
class Catalog(Generic[T]):
    """Named things of one kind, in the order of registration, each with its origin.

    Attributes:
        kind: what the entries are, as messages say it.
        entries: the things, by name.
        origins: where each came from, by name.
        fill: called when a name is missing, to register what plugins offer; None where nothing fills it.
    """

    kind: str
    entries: dict[str, T] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    fill: Callable[[], object] | None = None

    def get(self, name: str) -> T:
        """Return the entry called ``name``.

        Raises:
            UnknownNameError: with the nearest known names.
        """
        if name not in self.entries and self.fill is not None:
            self.fill()
        if name not in self.entries:
            raise UnknownNameError(self.kind, name, self.entries)
        return self.entries[name]

    def add(self, name: str, entry: T, origin: Origin) -> None:
        """Register an entry.

        Raises:
            UsageError: if the name is taken.
        """
        if name in self.entries:
            by = self.origins[name].plugin
            raise UsageError(f"{self.kind} {name!r} is already registered by {by}; choose another name")
        self.entries[name] = entry
        self.origins[name] = origin

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def values(self) -> Iterable[T]:
        """Return the entries, in the order of registration."""
        return self.entries.values()

    def __len__(self) -> int:
        return len(self.entries)


def load_plugins() -> None:
    """Register built-ins and installed plugins; what a catalogue is filled with, see `Catalog.fill`."""
    _loader()


def set_loader(load: Callable[[], object]) -> None:
    """Set what `load_plugins` calls: the packages below the registry do not know it."""
    global _loader
    _loader = load


def _loader() -> object:
    return None
