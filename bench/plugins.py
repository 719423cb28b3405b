"""Plugins: who offers which samplers, models, spacings, metrics and executors.

Built-ins are registered by the same hooks as anybody else's. A plugin that fails to import, raises in a
hook or registers a taken name costs its own entries and nothing else: the failure is kept, to be shown.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from bench.errors import UnknownNameError, UsageError
from bench.grid import SPACINGS, Spacing

if TYPE_CHECKING:
    from bench.cards import ModelCard
    from bench.executors.base import Executor
    from bench.metrics.base import Metric
    from bench.sampler import Sampler

PROJECT = "sampler_bench"
ENTRY_POINTS = "sampler_bench"
BUILT_INS = (
    "samplers.ddpm",
    "samplers.ddim",
    "models.exact",
    "models.digits",
    "models.cifar10",
    "models.public",
    "bench.metrics.builtin",
    "bench.executors.serial",
    "bench.executors.processes",
)

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

T = TypeVar("T")


class Hooks:
    """What a plugin may implement; each hook returns what it adds."""

    @hookspec
    def bench_samplers(self) -> Iterable[Sampler]:  # type: ignore[empty-body]
        """Return samplers: ``@sampler`` functions, or ``.with_(...)`` choices of their parameters.

        ``--samplers all`` runs every sampler returned here.
        """

    @hookspec
    def bench_models(self) -> Iterable[ModelCard]:  # type: ignore[empty-body]
        """Return cards of models that ``--model NAME`` can load."""

    @hookspec
    def bench_spacings(self) -> Mapping[str, Spacing]:  # type: ignore[empty-body]
        """Return rules (T, S) -> ascending time steps, by name."""

    @hookspec
    def bench_metrics(self) -> Iterable[Metric]:  # type: ignore[empty-body]
        """Return metrics; see ``bench.metrics.base.Metric``."""

    @hookspec
    def bench_executors(self) -> Iterable[Executor]:  # type: ignore[empty-body]
        """Return executors: ways to spread blocks over processes, devices or machines."""


@dataclass(frozen=True)
class Origin:
    """Where an entry came from.

    Attributes:
        plugin: distribution, module or file name.
        version: of the distribution; empty where there is none.
    """

    plugin: str
    version: str


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that could not be used, or an entry of it that could not.

    Attributes:
        plugin: distribution, module or file name.
        version: of the distribution, where known.
        stage: ``import``, ``register`` or the name of the hook that raised.
        message: one sentence.
        traceback: the full text, empty where nothing was raised.
    """

    plugin: str
    version: str
    stage: str
    message: str
    traceback: str = ""


@dataclass
class Catalog(Generic[T]):
    """Named things of one kind, in the order of registration, each with its origin."""

    kind: str
    entries: dict[str, T] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)

    def find(self, name: str) -> T:
        """Return the entry called ``name``.

        Raises:
            UnknownNameError: with the nearest known names.
        """
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

    def __len__(self) -> int:
        return len(self.entries)


class Registry:
    """Everything that built-ins, installed plugins and plugin files offer."""

    def __init__(self) -> None:
        self.samplers: Catalog[Sampler] = Catalog("sampler")
        self.presets: Catalog[Sampler] = Catalog("sampler preset")
        self.models: Catalog[ModelCard] = Catalog("model")
        self.spacings: Catalog[Spacing] = Catalog("spacing")
        self.metrics: Catalog[Metric] = Catalog("metric")
        self.executors: Catalog[Executor] = Catalog("executor")
        self.failures: list[PluginFailure] = []
        self._files: set[Path] = set()
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Hooks)
        builtin = Origin("sampler-bench", own_version())
        for name, spacing in SPACINGS.items():
            self.spacings.add(name, spacing, builtin)

    def load_built_ins(self) -> None:
        """Register what ships with the project."""
        for name in BUILT_INS:
            self._load("sampler-bench", own_version(), functools.partial(importlib.import_module, name))

    def load_entry_points(self) -> None:
        """Register every installed distribution's plugins (entry-point group ``sampler_bench``)."""
        for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
            version = point.dist.version if point.dist else ""
            plugin = point.dist.name if point.dist else point.name
            self._load(plugin, version, point.load)

    def load_file(self, path: Path) -> None:
        """Register a plugin file; a file that was registered already is not read again.

        Raises:
            UsageError: if the file does not exist.
        """
        if not path.is_file():
            raise UsageError(f"plugin file {path} does not exist")
        if path.resolve() in self._files:
            return
        self._files.add(path.resolve())
        self._load(str(path), "", functools.partial(import_file, path))

    def _load(self, plugin: str, version: str, load: Callable[[], Any]) -> None:
        try:
            module = load()
        except Exception as error:
            self._fail(plugin, version, "import", error)
            return
        if self._manager.is_registered(module):
            return
        try:
            self._manager.register(module, name=None if not plugin else f"{plugin}:{id(module)}")
            self._report_unknown_hooks(module, plugin, version)
        except Exception as error:
            self._fail(plugin, version, "register", error)
            return
        origin = Origin(plugin, version)
        for hook, register in self._hooks():
            self._collect(hook, register, module, origin)

    def _hooks(self) -> list[tuple[str, Callable[[Any, Origin], None]]]:
        return [
            ("bench_samplers", self._add_sampler),
            ("bench_models", lambda card, origin: self.models.add(card.name, card, origin)),
            ("bench_spacings", lambda item, origin: self.spacings.add(item[0], item[1], origin)),
            ("bench_metrics", lambda metric, origin: self.metrics.add(metric.name, metric, origin)),
            ("bench_executors", lambda ex, origin: self.executors.add(ex.name, ex, origin)),
        ]

    def _collect(
        self, hook: str, register: Callable[[Any, Origin], None], module: ModuleType, origin: Origin
    ) -> None:
        # One implementation at a time: in a joined call one that raises would take the others with it.
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            if implementation.plugin is not module:
                continue
            try:
                offered = implementation.function()
                items = list(offered.items() if isinstance(offered, Mapping) else offered)
            except Exception as error:
                self._fail(origin.plugin, origin.version, hook, error)
                continue
            for item in items:
                try:
                    register(item, origin)
                except Exception as error:
                    self._fail(origin.plugin, origin.version, hook, error)

    def _add_sampler(self, sampler: Sampler, origin: Origin) -> None:
        """Register a preset, its rule under its own name, and its alias."""
        from bench.sampler import Sampler

        if not isinstance(sampler, Sampler):
            raise UsageError(f"bench_samplers returned {type(sampler).__name__}, not a @sampler function")
        known = self.samplers.entries.get(sampler.name)
        if known is None:
            plain = Sampler(**{**sampler.__dict__, "alias": None, "parameters": _defaults(sampler)})
            self.samplers.add(sampler.name, plain, origin)
        elif known.function is not sampler.function:
            self.samplers.add(sampler.name, sampler, origin)  # raises: the name is taken
        if sampler.alias is not None:
            self.samplers.add(sampler.alias, sampler, origin)
        elif sampler.spec not in self.presets.entries:
            self.presets.add(sampler.spec, sampler, origin)

    def _report_unknown_hooks(self, module: ModuleType, plugin: str, version: str) -> None:
        for name in vars(module):
            marked = getattr(vars(module)[name], f"{PROJECT}_impl", None)
            if marked is not None and not hasattr(Hooks, name):
                error = UnknownNameError("hook", name, (h for h in vars(Hooks) if h.startswith("bench_")))
                self._fail(plugin, version, "register", error)

    def _fail(self, plugin: str, version: str, stage: str, error: Exception) -> None:
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, UsageError):
            message = str(error)
        text = "".join(traceback.format_exception(error))
        self.failures.append(PluginFailure(plugin, version, stage, message, text))


@functools.cache
def registry() -> Registry:
    """Return the process's registry, with built-ins and installed plugins loaded at the first call."""
    made = Registry()
    made.load_built_ins()
    made.load_entry_points()
    return made


def _defaults(sampler: Sampler) -> Mapping[str, Any]:
    parameters = inspect.signature(sampler.function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def import_file(path: Path) -> ModuleType:
    """Import a Python file under a name of its own and return the module.

    Raises:
        UsageError: if it is not a Python file.
        Exception: whatever the file raises.
    """
    name = f"sampler_bench_plugin_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that dataclasses and pickling inside the plugin find it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def own_version() -> str:
    """Return the installed version, empty in a bare checkout."""
    try:
        return importlib.metadata.version("sampler-bench")
    except importlib.metadata.PackageNotFoundError:
        return ""
