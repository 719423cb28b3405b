"""The metrics that ship with the project, gathered from their files."""

from __future__ import annotations

from collections.abc import Iterable

from bench.hooks import hookimpl
from bench.metrics import (
    copying,
    digits,
    inception,
    inception_score,
    kernel,
    labels,
    manifold,
    pixels,
    samples,
    size,
    sliced,
    vision,
)
from bench.metrics.metric import Metric

MODULES = (
    digits,
    pixels,
    inception,
    inception_score,
    kernel,
    labels,
    manifold,
    copying,
    sliced,
    samples,
    size,
    vision,
)


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer every built-in metric."""
    return [metric for module in MODULES for metric in module.bench_metrics()]
