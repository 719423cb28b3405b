"""The metrics that ship with the project, gathered from their files."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from bench.metrics.base import Metric
from bench.plugins import hookimpl

MODULES = (
    "bench.metrics.digits",
    "bench.metrics.pixels",
    "bench.metrics.inception",
    "bench.metrics.inception_score",
    "bench.metrics.kid",
    "bench.metrics.manifold",
    "bench.metrics.copying",
    "bench.metrics.sliced",
    "bench.metrics.law",
    "bench.metrics.vision",
)


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer every built-in metric."""
    return [metric for name in MODULES for metric in importlib.import_module(name).bench_metrics()]
