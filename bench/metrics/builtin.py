"""The metrics that ship with the project, gathered from their files."""

from __future__ import annotations

from collections.abc import Iterable

from bench.hooks import hookimpl
from bench.metrics import (
    authenticity,
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
    prompts,
    random_features,
    samples,
    size,
    sliced,
    vendi,
    vision,
)
from bench.metrics.frechet_limit import limit_of
from bench.metrics.frechet_score import FrechetMetric
from bench.metrics.metric import Metric

MODULES = (
    digits,
    cifar_resnet,
    random_features,
    pixels,
    prompts,
    efficientnet,
    inception,
    inception_score,
    kernel,
    labels,
    manifold,
    copying,
    authenticity,
    sliced,
    vendi,
    samples,
    size,
    vision,
)


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer every built-in metric, and of every Frechet distance its limit."""
    found = [metric for module in MODULES for metric in module.bench_metrics()]
    return [*found, *(limit_of(metric) for metric in found if isinstance(metric, FrechetMetric))]
