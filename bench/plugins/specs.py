"""The hooks that a plugin may implement; each returns what the plugin adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bench.diffusion.sampling import Sampler
from bench.diffusion.spacing import Spacing
from bench.files.download import Download
from bench.hooks import hookspec
from bench.metrics.metric import Metric
from bench.plugins.cards import ModelCard, SamplerSet
from bench.plugins.executor import Executor
from bench.plugins.observer import ObserverMaker


@hookspec
def bench_samplers() -> Iterable[Sampler]:
    """Return samplers: ``@sampler`` functions, or ``.with_(...)`` choices of their parameters.

    ``--samplers all`` runs every sampler returned here.
    """
    return ()


@hookspec
def bench_named_samplers() -> Iterable[Sampler]:
    """Return samplers that run where they are named; ``--samplers all`` leaves them out."""
    return ()


@hookspec
def bench_sampler_sets() -> Mapping[str, SamplerSet]:
    """Return sets of samplers that ``--samplers NAME`` runs together, by name."""
    return {}


@hookspec
def bench_models() -> Iterable[ModelCard]:
    """Return cards of models that ``--model NAME`` can load."""
    return ()


@hookspec
def bench_open_model(spec: str) -> ModelCard | None:
    """Return a card for what ``--model`` was given, such as a checkpoint's path; None where it is not known.

    Implementations are asked in turn, the last registered first, until one returns a card.
    """


@hookspec
def bench_downloads() -> Mapping[str, Download]:
    """Return what ``fetch NAME`` can download, by name."""
    return {}


@hookspec
def bench_spacings() -> Mapping[str, Spacing]:
    """Return rules by name: (T, S) -> time steps, or, marked by `on_levels`, (schedule, S) -> times."""
    return {}


@hookspec
def bench_metrics() -> Iterable[Metric]:
    """Return metrics, each one column of the table."""
    return ()


@hookspec
def bench_executors() -> Iterable[Executor]:
    """Return executors: ways to spread blocks over processes, devices or machines."""
    return ()


@hookspec
def bench_observers() -> Mapping[str, ObserverMaker]:
    """Return what ``run --log NAME[:WHERE]`` tells of every trial, by name: functions that make them."""
    return {}
