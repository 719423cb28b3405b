"""Scores of images that came from anywhere: the metrics of a sweep, with their errors, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench.data.images import to_uint8
from bench.data.sets import ImageData, content_hash, load_images
from bench.device.precision import own_float32
from bench.diffusion.interfaces import Prediction, Variance
from bench.diffusion.schedule import NoiseSchedule
from bench.errors import UsageError
from bench.metrics.defaults import default_metric
from bench.metrics.levels import Levels
from bench.metrics.measuring import Progress
from bench.metrics.metric import check_enough, spaces_of
from bench.plugins.cards import LoadedModel, ModelCard, ReferenceImages
from bench.plugins.loading import registry
from bench.records.trial import Failure
from bench.stats.score import Score
from bench.sweep.scoring import Scoring
from bench.sweep.worker import Worker

Given = str | Path | Tensor | npt.NDArray[np.generic] | ImageData
"""A name, a folder, a file; or images themselves: uint8 (N, C, H, W), or floats in [-1, 1]."""


@dataclass(frozen=True)
class GivenScores:
    """The scores of some images.

    Attributes:
        images: what was scored.
        metrics: names of what was asked for.
        scores: one of each metric, by its name.
        failures: why a metric gave none.
        levels: how the values are spread.
        provenance: what would make a score stale, by name.
        remarks: a sentence for everything that was done to images or left out, the reference's too.
    """

    images: ImageData
    metrics: tuple[str, ...]
    scores: Mapping[str, Score]
    failures: Sequence[Failure]
    levels: Levels
    provenance: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence[str] = ()


def score(
    images: Given,
    reference: Given,
    metrics: str | Sequence[str] = (),
    *,
    held_out: str | None = None,
    device: torch.device | str = "cpu",
    batch: int = 250,
) -> dict[str, Score]:
    """Return the scores of images against a reference, each with its standard error, by metric.

    ``bench.score("samples/", "cifar10", ["fid", "kid"])``. The images need no model and no sampler of this
    package: whatever drew them, they are scored as `run` scores its own.

    Args:
        images: a folder, an .npz or .npy file, the name of an image set, or uint8 (N, C, H, W), or floats in
            [-1, 1] of that shape, which are rounded to 256 levels as samples are.
        reference: what they should resemble; likewise, or an .npz with mu and sigma.
        metrics: names, of `sampler-bench list metrics`; where empty, the default of such images, by
            :func:`bench.metrics.defaults.default_metric`.
        held_out: images of the reference's law that nothing was trained on, for metrics that ask for some.
        device: where features are computed.
        batch: images at a time.

    Raises:
        UsageError: if the images cannot be read, are too few for a metric, or not of the reference's shape.
        BenchError: if a metric fails.
    """
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    found = scores_of(images, reference, names, held_out=held_out, device=device, batch=batch)
    if found.failures:
        raise UsageError(f"{found.failures[0].stage}: {found.failures[0].message}")
    return dict(found.scores)


def scores_of(
    images: Given,
    reference: Given,
    metrics: Sequence[str],
    *,
    held_out: str | None = None,
    device: torch.device | str = "cpu",
    batch: int = 250,
    n: int | None = None,
    progress: Progress | None = None,
) -> GivenScores:
    """Return everything about the scores of images; the arguments are those of `score`.

    Args:
        images: what is scored.
        reference: what it should resemble.
        metrics: names; the default of such images where empty.
        held_out: images of the reference's law.
        device: where features are computed.
        batch: images at a time.
        n: the first so many images; all if None.
        progress: called with the number of reference images measured and of all.
    """
    if batch < 1:
        raise UsageError(f"batch must be at least 1 image, got {batch}")
    try:
        where = torch.device(device)
    except RuntimeError:
        raise UsageError(f"unknown device {device!r}; use cpu, cuda or cuda:N") from None
    if n is not None and n < 2:
        raise UsageError(f"--n must be at least 2 images, got {n}")
    data = _read(images, "images")
    pixels = data.images if n is None else data.images[:n]
    if n is not None and len(pixels) < n:
        raise UsageError(f"{data.name} has {len(pixels):,} images, fewer than the {n:,} asked for")
    channels, height, width = (int(size) for size in pixels.shape[1:])
    shape = (channels, height, width)
    names = tuple(metrics) or (default_metric(shape),)
    chosen = [registry().metrics.get(name) for name in names]
    card = ModelCard(data.name, partial(_NoModel, shape), "images, not a model", held_out=held_out)
    loaded = LoadedModel(card, _NoModel(shape), "", _reference(reference, shape), None)
    spaces = spaces_of(chosen, shape, device)
    kept = frozenset(metric.space for metric in chosen if metric.needs == "features")
    worker = Worker(loaded, where, spaces, kept)
    scoring = Scoring(names, worker, progress)
    for metric in scoring.metrics:
        check_enough(metric, len(pixels), scoring.references.count)
    blocks = [range(i, min(i + batch, len(pixels))) for i in range(0, len(pixels), batch)]
    with own_float32():
        statistics = worker.measure_all(pixels, blocks)
        levels = Levels.of(pixels)
        scores, failures = scoring.scores(statistics, levels)
    provenance = {**scoring.provenance, "images": content_hash(pixels)}
    given = replace(data, images=pixels)
    remarks = [*data.remarks, *(f"reference: {remark}" for remark in scoring.references.remarks)]
    return GivenScores(given, names, scores, failures, levels, provenance, remarks)


class _NoModel:
    """What stands for the model of images that nobody here drew."""

    variance: Variance = "fixed"

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape, self.schedule = shape, NoiseSchedule.linear()

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        raise AssertionError("images are scored without a model")


def _read(given: Given, what: str) -> ImageData:
    """Return images as a set.

    Raises:
        UsageError: if they are of no form that is known.
    """
    if isinstance(given, ImageData):
        return given
    if isinstance(given, str | Path):
        return load_images(str(given), strict=True)
    pixels = torch.as_tensor(given)
    if not pixels.numel():
        raise UsageError(f"the {what} are none: their shape is {tuple(pixels.shape)}")
    if pixels.is_floating_point():
        if not bool(torch.isfinite(pixels).all()):
            raise UsageError(f"the {what} hold values that are not finite")
        low, high = float(pixels.min()), float(pixels.max())
        if low >= 0 or max(-low, high) > 20:
            raise UsageError(
                f"the {what} are floats from {low:.3g} to {high:.3g}: give uint8, or floats in [-1, 1]"
            )
        pixels = to_uint8(pixels)
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise UsageError(
            f"the {what} must be uint8, or floats in [-1, 1], of shape (N, C, H, W) with C 1 or 3, got"
            f" {str(pixels.dtype).removeprefix('torch.')} {tuple(pixels.shape)}"
        )
    return ImageData(what, pixels.cpu(), content_hash(pixels.cpu()))


def _reference(given: Given, shape: tuple[int, int, int]) -> ReferenceImages:
    """Return a reference that is read when it is first needed; images of another shape are refused then."""
    name = str(given) if isinstance(given, str | Path) else "reference"

    def checked() -> ImageData:
        data = _read(given, "reference")
        if tuple(data.images.shape[1:]) != shape:
            raise UsageError(
                f"the reference {name} has images of shape {tuple(data.images.shape[1:])}, and those to score"
                f" are {shape}: bring them to one shape first"
            )
        return data

    return ReferenceImages(name, checked)
