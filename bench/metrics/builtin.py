"""The metrics that ship with the project, gathered from their files."""

from __future__ import annotations

from collections.abc import Iterable

from bench.hooks import hookimpl
from bench.metrics import (
    cifar_resnet,
    copying,
    digits,
    efficientnet,
    inception,
    inception_score,
    kernel,
    labels,
    manifold,
    pixels,
    random_features,
    samples,
    size,
    sliced,
    vision,
)
from bench.metrics.metric import Metric

MODULES = (
    digits,
    cifar_resnet,
    random_features,
    pixels,
    efficientnet,
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
