"""Which reference a metric scores a model's samples against."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from bench.cards import LoadedModel
from bench.data import is_here, load_images
from bench.errors import UsageError
from bench.metrics.base import FeatureSpace, Metric, is_quantised
from bench.metrics.copying import CopyingMetric
from bench.metrics.imports import import_npz, is_statistics
from bench.metrics.law import law_reference
from bench.metrics.reference import Reference, reference_statistics


@runtime_checkable
class KnownMoments(Protocol):
    """A model that knows the mean and covariance of its data."""

    @property
    def law_mean(self) -> Tensor:
        """Mean of x_0, float64 (D,)."""

    @property
    def law_covariance(self) -> Tensor:
        """Covariance of x_0, float64 (D, D)."""


def with_held_out(loaded: LoadedModel, metric: Metric, space: FeatureSpace, device: torch.device) -> Metric:
    """Return the metric, told of images of the same law that were not trained on, where it asks for them.

    Without such images it is returned as it is.
    """
    name = loaded.card.held_out
    if name is None or not is_here(name) or not isinstance(metric, CopyingMetric):
        return metric
    images = load_images(name).images
    return replace(
        metric, held_out=reference_statistics(images, space, name=name, needs="features", device=device)
    )


def held_out_hashes(metrics: Iterable[Metric]) -> dict[str, str]:
    """Return the hash of the held-out images, in its feature space, of every metric that was told of some."""
    told = (metric for metric in metrics if isinstance(metric, CopyingMetric))
    return {metric.name: metric.held_out.hash for metric in told if metric.held_out is not None}


def find_references(
    loaded: LoadedModel, metrics: Iterable[Metric], spaces: Mapping[str, FeatureSpace], device: torch.device
) -> dict[str, Reference]:
    """Return the reference of every metric by its name; the images are read, or drawn, once for all of them.

    The arguments and what is raised are those of `find_reference`.
    """
    source = loaded.reference
    if source is not None:
        loaded = replace(loaded, reference=replace(source, images=functools.cache(source.images)))
    return {m.name: find_reference(loaded, m, spaces[m.space], device) for m in metrics}


def find_reference(
    loaded: LoadedModel, metric: Metric, space: FeatureSpace, device: torch.device
) -> Reference:
    """Return the reference statistics, measured, from the cache, imported, or of the model's own law.

    Args:
        loaded: the model; its reference is an image set, or an .npz with mu and sigma.
        metric: what is to be scored.
        space: the metric's, on ``device``.
        device: where images are put.

    Raises:
        UsageError: if nobody said what the samples should resemble, or it does not fit the metric.
    """
    name = loaded.card.name
    if not is_quantised(space):
        if not isinstance(loaded.model, KnownMoments):
            raise UsageError(f"{metric.name} is the distance to a known law; {name!r} has none: leave it out")
        mean, covariance = loaded.model.law_mean.numpy(), loaded.model.law_covariance.numpy()
        return law_reference(mean, covariance, loaded.model.shape, name=f"law of {name}")
    source = loaded.reference
    if source is None:
        raise UsageError(
            f"model {name!r} does not say what its samples should resemble; give --reference with an image"
            " folder, an .npz of images or of mu and sigma, or the name of an image set"
        )
    if is_statistics(source.name):
        return import_npz(Path(source.name), space.fingerprint, dim=space.dim)
    return reference_statistics(source.images(), space, name=source.name, needs=metric.needs, device=device)
