"""Plugins: who offers which samplers, models, spacings, metrics, executors and observers.

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
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_origin

import pluggy

from bench.catalog import Catalog, Origin, own_version
from bench.diffusion.sampling import SAMPLERS, Sampler
from bench.diffusion.spacing import RULES, SPACINGS, Spacing
from bench.errors import UnknownNameError, UsageError, one_line, sentence_of, users_code
from bench.files.download import Download
from bench.files.neighbours import open_folder, plain_name
from bench.hooks import PROJECT
from bench.metrics.metric import Metric
from bench.plugins import specs
from bench.plugins.cards import ModelCard, SamplerSet
from bench.plugins.executor import Executor
from bench.plugins.observer import ObserverMaker

BUILT_INS = (
    "samplers.ddpm",
    "samplers.ddim",
    "samplers.dpm_solver",
    "samplers.unipc",
    "samplers.deis",
    "samplers.k_diffusion_samplers",
    "samplers.learned",
    "samplers.lms",
    "samplers.ipndm",
    "samplers.pndm",
    "samplers.sa_solver",
    "samplers.diffusers_schedulers",
    "samplers.edm",
    "samplers.dpm_single",
    "samplers.ancestral",
    "samplers.er_sde",
    "samplers.restart",
    "samplers.analytic",
    "samplers.ddim_inversion",
    "samplers.sets",
    "models.exact",
    "models.digits",
    "models.digits_latent",
    "models.cifar10",
    "models.plugin",
    "bench.metrics.builtin",
    "bench.sweep.executors.serial",
    "bench.sweep.executors.processes",
    "bench.sweep.executors.ray",
    "bench.sweep.executors.submitit",
    "bench.sweep.observers.csv_table",
    "bench.sweep.observers.tensorboard_events",
    "bench.sweep.observers.mlflow_runs",
    "bench.sweep.observers.wandb_runs",
)


HOOKS = tuple(name for name in vars(specs) if name.startswith("bench_"))
"""Names of the hooks that a plugin may implement."""


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that could not be used, or an entry of it that could not.

    Attributes:
        plugin: distribution, module or file name.
        version: the version of the distribution, where known.
        stage: ``import``, ``register`` or the name of the hook that raised.
        message: one sentence.
        traceback: the full text, empty where nothing was raised.
    """

    plugin: str
    version: str
    stage: str
    message: str
    traceback: str = ""


class Registry:
    """Everything that built-ins, installed plugins and plugin files offer.

    Args:
        samplers: catalogue to register samplers in; a new one by default.
        spacings: catalogue to register spacings in; a new one by default.
    """

    def __init__(
        self, samplers: Catalog[Sampler] | None = None, spacings: Catalog[Spacing] | None = None
    ) -> None:
        self.samplers: Catalog[Sampler] = Catalog("sampler") if samplers is None else samplers
        self.default_samplers: Catalog[Sampler] = Catalog("sampler preset")
        self.sets: Catalog[SamplerSet] = Catalog("set of samplers")
        self.models: Catalog[ModelCard] = Catalog("model")
        self.spacings: Catalog[Spacing] = Catalog("spacing") if spacings is None else spacings
        self.metrics: Catalog[Metric] = Catalog("metric")
        self.executors: Catalog[Executor] = Catalog("executor")
        self.observers: Catalog[ObserverMaker] = Catalog("observer")
        self.downloads: Catalog[Download] = Catalog("file to fetch")
        self.failures: list[PluginFailure] = []
        self._files: dict[Path, Origin] = {}
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(specs)
        builtin = Origin("sampler-bench", own_version())
        for name, spacing in RULES.items():
            self.spacings.add(name, spacing, builtin)

    def load_built_ins(self) -> None:
        """Register what ships with the project."""
        for name in BUILT_INS:
            self._load("sampler-bench", own_version(), functools.partial(importlib.import_module, name))

    def load_entry_points(self) -> None:
        """Register every installed distribution's plugins (entry-point group `PROJECT`)."""
        for point in importlib.metadata.entry_points(group=PROJECT):
            version = point.dist.version if point.dist else ""
            plugin = point.dist.name if point.dist else point.name
            self._load(plugin, version, point.load)

    def load_file(self, path: Path) -> None:
        """Register a plugin file; one that was registered already, by a package too, is not read again.

        Raises:
            UsageError: if the file does not exist.
        """
        if path.is_dir():
            raise UsageError(f"plugin {path} is a folder; give one of its files, or install it as a package")
        if not path.is_file():
            raise UsageError(f"plugin file {path} does not exist")
        if path.resolve() in self._files:
            return
        self._files[path.resolve()] = Origin(str(path), "")  # its failure to be imported is its own too
        self._load(str(path), "", functools.partial(import_file, path))

    def samplers_of(self, path: Path) -> list[Sampler]:
        """Return the samplers that a loaded file registered, each once."""
        origin = self._files.get(path.resolve())
        catalogs = self.default_samplers, self.samplers
        offered = [(each.origins[name], one) for each in catalogs for name, one in each.entries.items()]
        return list({one.spec: one for by, one in offered if by is origin}.values())

    def failures_of(self, path: Path) -> list[PluginFailure]:
        """Return what a loaded file could not do."""
        origin = self._files.get(path.resolve())
        return [one for one in self.failures if origin and one.plugin == origin.plugin]

    def _load(self, plugin: str, version: str, load: Callable[[], Any]) -> None:
        try:
            module = load()
        except users_code() as error:
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
        if not any(getattr(value, f"{PROJECT}_impl", None) for value in vars(module).values()):
            hooks = ", ".join(HOOKS)
            nothing = UsageError(f"it offers nothing: mark a function with @bench.hookimpl, one of {hooks}")
            self._fail(plugin, version, "register", nothing)
            return
        origin = Origin(plugin, version)
        if file := getattr(module, "__file__", None):
            self._files[Path(file).resolve()] = origin
        for hook, register in self._hooks():
            self._collect(hook, register, module, origin)

    def _hooks(self) -> list[tuple[str, Callable[[Any, Origin], None]]]:
        return [
            ("bench_samplers", self._add_sampler),
            ("bench_named_samplers", self.add_named_sampler),
            ("bench_sampler_sets", self._add_set),
            ("bench_models", lambda card, origin: self.models.add(card.name, card, origin)),
            ("bench_spacings", lambda item, origin: self.spacings.add(item[0], item[1], origin)),
            ("bench_metrics", lambda metric, origin: self.metrics.add(metric.name, metric, origin)),
            ("bench_executors", lambda ex, origin: self.executors.add(ex.name, ex, origin)),
            ("bench_observers", lambda item, origin: self.observers.add(item[0], item[1], origin)),
            ("bench_downloads", lambda item, origin: self.downloads.add(item[0], item[1], origin)),
        ]

    def open_model(self, spec: str) -> ModelCard | None:
        """Return the card that a plugin gives for what ``--model`` was given, None where none knows it."""
        for implementation in reversed(self._manager.hook.bench_open_model.get_hookimpls()):
            card = implementation.function(spec)
            if isinstance(card, ModelCard):
                return card
        return None

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
            except users_code() as error:
                self._fail(origin.plugin, origin.version, hook, error)
                continue
            for item in items:
                try:
                    register(item, origin)
                except Exception as error:
                    self._fail(origin.plugin, origin.version, hook, error)

    def _add_sampler(self, sampler: Sampler, origin: Origin) -> None:
        """Register a sampler that ``--samplers all`` runs."""
        self.add_named_sampler(sampler, origin)
        if sampler.alias is None and sampler.spec not in self.default_samplers.entries:
            self.default_samplers.add(sampler.spec, sampler, origin)

    def add_named_sampler(self, sampler: Sampler, origin: Origin) -> None:
        """Register the rule of a sampler under its own name, and the sampler under its alias."""
        if not isinstance(sampler, Sampler):
            raise UsageError(f"expected @sampler functions, got {type(sampler).__name__}")
        self._check_spec(sampler)
        known = self.samplers.entries.get(sampler.name)
        if known is None:
            plain = replace(sampler, alias=None, parameters=_defaults(sampler))
            self.samplers.add(sampler.name, plain, origin)
        elif known.function is not sampler.function:
            self.samplers.add(sampler.name, sampler, origin)  # raises: the name is taken
        if sampler.alias is not None:
            self.samplers.add(sampler.alias, sampler, origin)

    def _check_spec(self, sampler: Sampler) -> None:
        """Raise UsageError for a sampler whose text does not name it again: trials have nothing else."""
        if not inspect.isroutine(sampler.function):
            kind = type(sampler.function).__name__
            raise UsageError(f"sampler {sampler.name!r} is a {kind}; decorate a function that calls it")
        for name in filter(None, (sampler.name, sampler.alias)):
            if ":" in name or name.strip() in ("", "all") or name in self.sets.entries:
                raise UsageError(f"no sampler can be named by {name!r}; choose another name")
        kinds = _types_of_options(sampler.function)
        for key, value in sampler.parameters.items():
            kind = kinds.get(key, type(value))
            fits = get_origin(kind) is Literal or (kind in (int, float, bool, str) and _is_a(value, kind))
            if not fits:
                told = f"option {key} of sampler {sampler.name!r} is no text's: {value!r} of type {kind}"
                raise UsageError(f"{told}; take int, float, bool, str or a Literal, and a default of it")

    def _add_set(self, item: tuple[str, SamplerSet], origin: Origin) -> None:
        name, offered = item
        if not isinstance(offered, SamplerSet):
            raise UsageError(f"expected a SamplerSet for {name!r}, got {type(offered).__name__}")
        if name == "all" or name in self.samplers.entries:
            raise UsageError(f"the set {name!r} has the name of a sampler or of all; choose another name")
        self.sets.add(name, offered, origin)

    def _report_unknown_hooks(self, module: ModuleType, plugin: str, version: str) -> None:
        for name in vars(module):
            marked = getattr(vars(module)[name], f"{PROJECT}_impl", None)
            if marked is not None and name not in HOOKS:
                error = UnknownNameError("hook", name, HOOKS)
                self._fail(plugin, version, "register", error)

    def _fail(self, plugin: str, version: str, stage: str, error: BaseException) -> None:
        message = one_line(sentence_of(error))
        text = "".join(traceback.format_exception(error))
        self.failures.append(PluginFailure(plugin, version, stage, message, text))


_process_registry: Registry | None = None


def registry() -> Registry:
    """Return the process's registry, with built-ins and installed plugins loaded at the first call."""
    global _process_registry
    if _process_registry is None:
        # Kept before it is filled: a plugin may ask for another one's sampler while it is imported.
        _process_registry = Registry(SAMPLERS, SPACINGS)
        _process_registry.load_built_ins()
        _process_registry.load_entry_points()
    return _process_registry


def _defaults(sampler: Sampler) -> Mapping[str, Any]:
    parameters = inspect.signature(sampler.function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _is_a(value: object, kind: Any) -> bool:
    return isinstance(value, int | float if kind is float else kind)


def _types_of_options(function: Any) -> Mapping[str, Any]:
    """Return the types; those of model, x, grid and noise are forgotten where only a checker knows them."""
    try:
        return typing.get_type_hints(function)
    except NameError:
        plain = inspect.unwrap(getattr(function, "__func__", function))
        options = [p for p in inspect.signature(plain).parameters.values() if p.kind is p.KEYWORD_ONLY]
        plain.__annotations__ = {p.name: p.annotation for p in options if p.annotation is not p.empty}
    try:
        return typing.get_type_hints(function)
    except NameError as error:
        raise UsageError(f"the type of an option cannot be read: {error}") from None


def import_file(path: Path) -> ModuleType:
    """Import a Python file under a name of its own and return the module.

    What lies beside it can be imported by it, see `bench.files.neighbours`.

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
    open_folder(module, path.resolve().parent)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, ImportError):
            error.msg = plain_name(error.msg)
        raise
    return module
