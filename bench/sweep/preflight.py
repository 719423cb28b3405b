"""Before a long sweep: is everything there? Every lack in one sentence, none after hours of work."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench.data.sets import load_images, set_hash
from bench.diffusion.interfaces import EpsilonModel
from bench.diffusion.stages import image_shape
from bench.errors import BenchError
from bench.metrics.groups import GROUPS
from bench.metrics.imports import is_statistics
from bench.metrics.metric import check_offered
from bench.metrics.space import FeatureSpace, get_space
from bench.plugins.cards import ModelCard
from bench.plugins.loading import registry
from bench.plugins.lookup import get_card
from bench.published.presets import Preset
from bench.sweep.device_memory import lacks_on_devices
from bench.sweep.references import by_space, imported_reference
from bench.sweep.request import Sweep

BASE_BYTES = 2 * 2**30
"""Interpreter, torch and a feature network at work."""


GIB = 2**30


@dataclass(frozen=True)
class HostMemory:
    """Host memory that a sweep needs at once, in bytes.

    Attributes:
        weights: bytes of the model's weights.
        images: bytes of the reference's images.
        statistics: sums of the trials of one S, which are drawn in turn, and of the reference.
        features: bytes of the feature vectors of the trials of one S and of the reference, where scores need
            every vector.
    """

    weights: int
    images: int
    statistics: int
    features: int = 0

    @property
    def total(self) -> int:
        """Everything, with what the program itself takes."""
        return BASE_BYTES + self.weights + self.images + self.statistics + self.features

    def __str__(self) -> str:
        parts = {"weights": self.weights, "reference images": self.images, "statistics": self.statistics}
        parts |= {"features": self.features} if self.features else {}
        return ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())


def missing_requirements(preset: Preset, sweep: Sweep) -> Iterator[str]:
    """Yield a sentence for everything that the sweep of a preset will miss.

    The model, the reference and the feature networks are really loaded: a damaged file is found here.
    """
    model: EpsilonModel | None = None
    try:
        card = get_card(sweep.model)
        model = card.load()
    except BenchError as error:
        unknown = preset.get and sweep.model == preset.model
        yield f"{preset.model} is no model of this installation: {preset.get}" if unknown else str(error)
        card = None
    images: Tensor | None = None
    source = sweep.reference or (card.data if card else None)
    imported = source is not None and is_statistics(source)
    if source is not None and not imported:
        try:
            images = load_images(source, strict=True).images
        except BenchError as error:
            yield str(error)
    elif not imported and (model is None or not hasattr(model, "draw")):
        yield f"the reference is missing: give --reference with {preset.images}, a folder or an .npz file"
    if images is not None and preset.is_model(sweep.model):
        yield from _wrong_images(preset, images)
    shape = image_shape(model) if model is not None else preset.image_shape
    spaces: list[FeatureSpace] = []
    kept: list[FeatureSpace] = []
    names = sweep.metrics or (card.metrics_for(shape) if card else ())
    for name, metrics in by_space(map(registry().metrics.get, names)).items():
        try:
            spaces.append(get_space(name, shape))
            for metric in metrics:
                check_offered(metric, spaces[-1])
            if source is not None and imported:
                imported_reference(Path(source), metrics, spaces[-1])
        except BenchError as error:
            yield str(error)
            continue
        if sweep.keep_features or any(metric.needs == "features" for metric in metrics):
            kept.append(spaces[-1])
    if model is not None:
        yield from lacks_on_devices(sweep.devices_here, _batch(sweep, card), model, spaces)
    there, needed = available_memory(), memory(sweep, model, images, spaces, kept)
    if there is not None and there < needed.total:
        yield (
            f"about {needed.total / GIB:.1f} GiB of memory are needed ({needed}), {there / GIB:.1f} are free;"
            " close other programs or give fewer --samplers at a time"
        )


def memory(
    sweep: Sweep,
    model: EpsilonModel | None,
    images: Tensor | None,
    spaces: Sequence[FeatureSpace],
    kept: Sequence[FeatureSpace] = (),
) -> HostMemory:
    """Return the host memory a sweep needs; ``kept`` are the spaces of which every feature vector is kept.

    A trial keeps d (d + 1) / 2 numbers of 8 bytes for each jackknife group, and two more such sets while
    blocks are added; the samplers of one S are drawn in turn. A reference keeps three d x d matrices. Feature
    vectors are kept in 4 bytes, of every trial of one S and of the reference, and scored in 8.
    """
    weights = 0
    if isinstance(model, torch.nn.Module):
        weights = sum(p.numel() * p.element_size() for p in (*model.parameters(), *model.buffers()))
    groups = min(GROUPS, sweep.n) + 2
    trials = len(sweep.samplers) * len(sweep.spacings)
    statistics = sum(
        trials * groups * 4 * space.dim * (space.dim + 1) + 24 * space.dim**2 for space in spaces
    )
    count = len(images) if images is not None else sweep.n
    vectors = sum((4 * (trials * sweep.n + count) + 8 * (sweep.n + count)) * space.dim for space in kept)
    return HostMemory(weights, images.numel() if images is not None else 0, statistics, vectors)


def available_memory() -> int | None:
    """Return the bytes of memory that are free for this process, None where the system does not say."""
    found = []
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        return None
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    if math.isfinite(limit) and math.isfinite(used):
        found.append(int(limit - used))
    return min(found)


def _number(path: Path) -> float:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return math.nan


def _wrong_images(preset: Preset, images: Tensor) -> Iterator[str]:
    shape, count = tuple(images.shape[1:]), len(images)
    if shape != preset.image_shape:
        yield (
            f"the reference has images of shape {shape}, and the table is of {preset.image_shape}: give"
            f" --reference with {preset.images}"
        )
    elif preset.image_count not in (None, count):
        yield f"the reference has {count:,} images: give --reference with {preset.images}"
    elif preset.image_hash is not None and set_hash(images) != preset.image_hash:
        yield (
            f"the reference's images are not {preset.images} (SHA-256 {set_hash(images)[:16]}...,"
            f" not {preset.image_hash[:16]}...): get them again, or give --reference with them"
        )


def _batch(sweep: Sweep, card: ModelCard | None) -> int:
    return min(sweep.batch or (card.batch if card else sweep.n), sweep.n)
