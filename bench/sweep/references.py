"""Which reference a metric scores a model's samples against."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from bench.data.sets import is_here, load_images
from bench.errors import UsageError
from bench.metrics.copying import CopyingMetric
from bench.metrics.groups import GroupedStatistics, Needs
from bench.metrics.imports import images_beside, import_npz, is_statistics
from bench.metrics.levels import Levels
from bench.metrics.measuring import Progress, measure_references, reference_statistics
from bench.metrics.metric import Metric
from bench.metrics.moments import Moments
from bench.metrics.reference import Reference, hash_images, reference_hash
from bench.metrics.samples import law_reference
from bench.metrics.space import FeatureSpace, is_quantised
from bench.plugins.cards import LoadedModel, ReferenceImages


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
    images = load_images(name, strict=True).images
    return replace(
        metric, held_out=reference_statistics(images, space, name=name, needs="features", device=device)
    )


def held_out_hashes(metrics: Iterable[Metric]) -> dict[str, str]:
    """Return the hash of the held-out images, in its feature space, of every metric that was told of some."""
    told = (metric for metric in metrics if isinstance(metric, CopyingMetric))
    return {metric.name: metric.held_out.hash for metric in told if metric.held_out is not None}


class References:
    """The reference of every metric of a sweep, by the metric's name.

    Imported, the model's own law, or measured: then images are read, or drawn, once, go through the feature
    networks once, and the metrics of a space share its reference. Nothing is measured before `measure`, or
    before the first is asked for; the hashes are known before.

    Args:
        loaded: the model; its reference is an image set, or an .npz with mu and sigma.
        metrics: what is to be scored; those with ``uses_reference = False`` get an empty one.
        spaces: the metrics' feature spaces by name, on ``device``.
        device: where images are put.
        progress: called with the number of images measured and of all.

    Attributes:
        remarks: what was done to files of the reference or left out, known once its hash is.
        lossy: whether some of them are compressed with losses, likewise.

    Raises:
        UsageError: if nobody said what the samples should resemble, or it does not fit a metric.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        metrics: Iterable[Metric],
        spaces: Mapping[str, FeatureSpace],
        device: torch.device,
        progress: Progress | None = None,
    ) -> None:
        self._loaded, self._spaces, self._device, self._progress = loaded, spaces, device, progress
        metrics = list(metrics)
        self._space_of = {metric.name: metric.space for metric in metrics}
        self._found: dict[str, Reference] = {}
        self._unmeasured: dict[str, Needs] = {}
        self._levels: Levels | None = None
        self.remarks: tuple[str, ...] = ()
        self.lossy = False
        for name, alike in by_space(metrics).items():
            self._place(name, [metric for metric in alike if getattr(metric, "uses_reference", True)])
        self._measured = frozenset(self._unmeasured)  # spaces whose reference is made of images

    def _place(self, space: str, metrics: Sequence[Metric]) -> None:
        if not metrics:
            self._found[space] = no_reference(self._spaces[space])
        elif not is_quantised(self._spaces[space]):
            self._found[space] = _law(self._loaded, metrics)
        elif is_statistics(reference_images(self._loaded).name):
            path = Path(reference_images(self._loaded).name)
            self._found[space] = imported_reference(path, metrics, self._spaces[space])
            if images := images_beside(path):
                told = f"{path} holds images ({images}) too; what is used is its mu and sigma"
                self.remarks = tuple(dict.fromkeys((*self.remarks, told)))
        else:
            needs = (metric.needs for metric in metrics)
            self._unmeasured[space] = "features" if "features" in needs else "moments"

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Identity of every metric's reference, without measuring it."""
        own = {space: found.hash for space, found in self._found.items()}
        own |= {
            space: reference_hash(*self._content, self._spaces[space].fingerprint)
            for space in self._measured - set(own)
        }
        return {name: own[space] for name, space in self._space_of.items()}

    @property
    def levels(self) -> Levels | None:
        """How the values of the reference's images are spread; None where only statistics are known."""
        self.measure()
        return self._levels

    @property
    def count(self) -> int:
        """Number of images in the reference; 0 where no score is measured against images."""
        return self._content[1]

    def without(
        self, places: Tensor, features: Mapping[str, Sequence[GroupedStatistics]]
    ) -> Callable[[str], Reference]:
        """Return the references without some of their images, by metric.

        Args:
            places: int64 (k,), the numbers of the images that are left out.
            features: the statistics of these images, by feature space.
        """
        self.measure()
        mark = hashlib.sha256(places.numpy().tobytes()).hexdigest()
        made = {
            space: _less(self._found[space], places, parts, mark)
            for space, parts in features.items()
            if space in self._measured
        }
        return lambda metric: made.get(self._space_of[metric]) or self.of(metric)

    @cached_property
    def _content(self) -> tuple[str, int]:
        return hash_images([self._images]) if self._measured else ("", 0)

    @cached_property
    def _images(self) -> Tensor:
        data = reference_images(self._loaded).data()
        self.remarks, self.lossy = tuple(dict.fromkeys((*self.remarks, *data.remarks))), data.lossy > 0
        return data.images

    def of(self, metric: str) -> Reference:
        """Return the reference of a metric, measured now if `measure` was not called."""
        self.measure()
        return self._found[self._space_of[metric]]

    def measure(self) -> None:
        """Measure the references that are neither at hand nor cached; a second call does nothing."""
        if not self._unmeasured:
            return
        wanted = [(self._spaces[space], needs) for space, needs in self._unmeasured.items()]
        made = measure_references(
            self._images,
            wanted,
            name=reference_images(self._loaded).name,
            device=self._device,
            progress=self._progress,
        )
        self._levels = Levels.of(self._images)
        self._found |= dict(zip(self._unmeasured, made, strict=True))
        self._unmeasured = {}
        del self._images


def by_space(metrics: Iterable[Metric]) -> dict[str, list[Metric]]:
    """Return the metrics by the name of their feature space, in order."""
    found: dict[str, list[Metric]] = {}
    for metric in metrics:
        found.setdefault(metric.space, []).append(metric)
    return found


def no_reference(space: FeatureSpace) -> Reference:
    """Return what stands for the reference of a score that needs none."""
    return Reference("none", 0, np.zeros(space.dim), np.zeros((space.dim, space.dim)), "", space.fingerprint)


def _less(reference: Reference, places: Tensor, parts: Sequence[GroupedStatistics], mark: str) -> Reference:
    """Return a reference without the images in some places, whose statistics are at hand."""
    moments = Moments(reference.n, reference.mean, reference.cov * (reference.n - 1))
    for part in parts:
        moments = moments - part.total
    rows = reference.features
    rows = None if rows is None else np.delete(rows, places.numpy(), axis=0)
    content = hashlib.sha256(f"{reference.data_hash} without {mark}".encode()).hexdigest()
    name = f"{reference.name}, the rest"
    return Reference(name, moments.n, moments.mean, moments.cov, content, reference.space, rows)


def _law(loaded: LoadedModel, metrics: Sequence[Metric]) -> Reference:
    name = loaded.card.name
    if not isinstance(loaded.model, KnownMoments):
        raise UsageError(f"{metrics[0].name} is the distance to a known law; {name!r} has none: leave it out")
    mean, covariance = loaded.model.law_mean.numpy(), loaded.model.law_covariance.numpy()
    return law_reference(mean, covariance, loaded.model.shape, name=f"law of {name}")


def reference_images(loaded: LoadedModel) -> ReferenceImages:
    """Return the images that a model's samples should resemble.

    Raises:
        UsageError: if nobody said which.
    """
    if loaded.reference is None:
        raise UsageError(
            f"model {loaded.card.name!r} does not say what its samples should resemble; give --reference with"
            " an image folder, an .npz of images or of mu and sigma, or the name of an image set"
        )
    return loaded.reference


def imported_reference(path: Path, metrics: Sequence[Metric], space: FeatureSpace) -> Reference:
    """Return the reference that an .npz with mu and sigma gives the metrics of a space.

    Raises:
        UsageError: if the file does not fit the space, or a metric needs more than mean and covariance.
    """
    if lacking := [metric.name for metric in metrics if metric.needs == "features"]:
        holds, way = "mean and covariance alone", "give --reference with images"
        if images := images_beside(path):
            holds = f"mean and covariance, which are what is used, and images ({images})"
            way = f"give --reference with {images} in a file of its own"
        raise UsageError(
            f"{path} holds {holds}, and {', '.join(lacking)} needs every feature vector of the reference:"
            f" leave it out of --metrics, or {way}"
        )
    return import_npz(path, space.fingerprint, dim=space.dim)
