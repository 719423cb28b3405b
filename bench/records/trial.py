"""A trial: what defines one cell of the table, and what is left of its blocks of samples."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bench.device.modes import EAGER
from bench.errors import NotApplicable, sentence_of
from bench.metrics.groups import GroupedStatistics
from bench.metrics.levels import Levels
from bench.spec import join_spec, parse_options, split_spec

PREVIEWS = 16
"""Images of each trial that are kept to look at: the first ones."""

POINTS = 1000
"""As many where an image is a point: a few of them show nothing."""


def is_points(shape: Sequence[int]) -> bool:
    """Return whether images of a shape (C, H, W) are points of two or more coordinates: one pixel each."""
    channels, height, width = shape
    return channels > 1 and height == width == 1


def kept_of(images: Tensor, start: int = 0) -> Tensor:
    """Return those of some images (B, C, H, W) that are kept to look at; ``start`` is the first's index."""
    most = POINTS if is_points(images.shape[1:]) else PREVIEWS
    return images[: max(0, most - start)]


@dataclass(frozen=True)
class Trial:
    """What defines a cell; two trials with equal fields give equal images.

    Attributes:
        model: what ``--model`` was given.
        sampler: rule and parameters, as text: `get_sampler` reads it.
        spacing: rule that chooses the time steps.
        steps: S, the number of steps asked for.
        n: number of samples.
        seed: the seed of the noise.
        batch: samples drawn at once: a block.
        precision: dtype of the network's arithmetic; the state is float32 always.
        device: ``cpu`` or ``cuda``.
        metrics: names of the scores; the first is the table's.
        reference: image set scored against where the user chose it, else None.
        mode: how the network is run, see `bench.device.modes.Mode`; as it is, ``eager``, in records that do
            not say.
    """

    model: str
    sampler: str
    spacing: str
    steps: int
    n: int
    seed: int
    batch: int
    precision: str
    device: str
    metrics: tuple[str, ...]
    reference: str | None = None
    mode: str = EAGER

    @cached_property
    def key(self) -> str:
        """Hash of the fields, 16 hex digits."""
        text = json.dumps({**self.to_json(), "metrics": sorted(self.metrics)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def at_any_n(self) -> Trial:
        """What identifies the trial whatever its number of samples: it with n and batch 0."""
        return replace(self, n=0, batch=0)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values; the mode only where the network is not run as it is."""
        plain = {**{f.name: getattr(self, f.name) for f in fields(self)}, "metrics": list(self.metrics)}
        return plain if self.mode != EAGER else {k: v for k, v in plain.items() if k != "mode"}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Trial:
        """Return the trial that `to_json` wrote, whatever else stands beside its fields."""
        known = {f.name: given[f.name] for f in fields(cls) if f.name in given}
        return cls(**{**known, "metrics": tuple(known["metrics"])})

    @property
    def block_count(self) -> int:
        """Number of blocks, without a list of them."""
        return -(-self.n // self.batch)

    @property
    def blocks(self) -> list[range]:
        """Sample indices of every block, in order."""
        return [range(i, min(i + self.batch, self.n)) for i in range(0, self.n, self.batch)]


def split_option(model: str, key: str) -> tuple[str, str | None]:
    """Return (what ``--model`` was given without an option, the option's value or None)."""
    name, given = split_spec(model)
    options = parse_options(given, f"model {model!r}")
    value = options.pop(key, None)
    return join_spec(name, options), value


def with_option(model: str, key: str, value: str) -> str:
    """Return what ``--model`` was given with an option set: ``NAME:key=value,...``."""
    name, given = split_spec(model)
    options = parse_options(given, f"model {model!r}")
    options.pop(key, None)
    return join_spec(name, {**options, key: value})


@dataclass(frozen=True)
class Task:
    """One block of one trial: the unit of work, of resuming and of spreading over devices."""

    trial: Trial
    block: range


@dataclass(frozen=True)
class Cost:
    """What drawing and scoring took, added up over blocks.

    Attributes:
        calls: what the sampler asks of the model for one sample, counted: the latency.
        sampling_seconds: from x_T to x_0, with the noise.
        model_seconds: the network's part of it.
        scoring_seconds: from x_0 to features.
        peak_bytes: greatest memory use, of the GPU where there is one, else of the process.
        evaluations: rows sent through the network for one sample, counted inside a guide: the cost; None in
            records of versions that did not count them.
        gradients: rows of a classifier's gradient for one sample, each a pass forward and one back.
        upsampler_evaluations: rows through the later networks of a cascade for one sample.
        decoder_evaluations: rows through the decoder of a latent model for one sample.
        decoding_seconds: from x_0 to images, which is no part of sampling.
    """

    calls: float = 0
    sampling_seconds: float = 0
    model_seconds: float = 0
    scoring_seconds: float = 0
    peak_bytes: int = 0
    evaluations: float | None = None
    gradients: float = 0
    upsampler_evaluations: float = 0
    decoder_evaluations: float = 0
    decoding_seconds: float = 0

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Cost:
        """Return the cost that a record or a block holds, whatever else stands beside its fields."""
        return cls(**{f.name: given[f.name] for f in fields(cls) if f.name in given})

    def with_upsampler(self, later: Cost) -> Cost:
        """Return the cost of a cascade's stages so far and of the next: its network's rows stand apart."""
        rows = self.upsampler_evaluations + (later.calls if later.evaluations is None else later.evaluations)
        more = replace(later, calls=0, evaluations=None, decoder_evaluations=0, upsampler_evaluations=rows)
        decodes = self.decoder_evaluations + later.decoder_evaluations
        return replace(self + more, decoder_evaluations=decodes)

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            max(self.calls, other.calls),
            self.sampling_seconds + other.sampling_seconds,
            self.model_seconds + other.model_seconds,
            self.scoring_seconds + other.scoring_seconds,
            max(self.peak_bytes, other.peak_bytes),
            max((one for one in (self.evaluations, other.evaluations) if one is not None), default=None),
            max(self.gradients, other.gradients),
            max(self.upsampler_evaluations, other.upsampler_evaluations),
            max(self.decoder_evaluations, other.decoder_evaluations),
            self.decoding_seconds + other.decoding_seconds,
        )


@dataclass(frozen=True)
class BlockImages:
    """What a record keeps of a block's images: enough to tell whether they come out again.

    Attributes:
        digest: SHA-256 of the bytes of the uint8 images (B, C, H, W), its first 16 hex digits.
        levels: how their values are spread.
    """

    digest: str
    levels: Levels

    @classmethod
    def of(cls, images: Tensor, levels: Levels) -> BlockImages:
        """Return it for uint8 images (B, C, H, W) whose levels are at hand."""
        content = images.cpu().contiguous().numpy()
        return cls(hashlib.sha256(content.data).hexdigest()[:16], levels)

    @classmethod
    def parse(cls, text: str) -> BlockImages:
        """Return what ``str`` of it wrote.

        Raises:
            ValueError: if the text is none.
        """
        digest, *sums = text.split()
        levels = Levels.from_array(np.array(sums, dtype=np.int64))
        if levels.count < 1:
            raise ValueError("a block has images")
        return cls(digest, levels)

    def __str__(self) -> str:
        return " ".join([self.digest, *map(str, self.levels.to_array().tolist())])


@dataclass
class BlockResult:
    """What is left of a block once its images are scored.

    Attributes:
        block: sample indices.
        statistics: sums by jackknife group, by feature space.
        cost: the cost of this block.
        previews: uint8 images of the first samples, see `kept_of`, (k, C, H, W), maybe none.
        film: uint8 frames of sample 0 on its way, (frames, C, H, W); none in other blocks.
        levels: how the images' values are spread.
        images: one for each block that was added up; none of a block that an earlier version kept.
        changed: names of what was changed globally while it was drawn, and put back after it.
        machine: name of the device that drew it, where that was in another process.
        batch: samples drawn at a time; None where all of a block were.
        answers: how far the network's answers are from those of the network as it is in float32, see
            `bench.records.record.DrawingInfo`; None where it was run so.
        ready_seconds: what making the network ready has taken in the process that drew it.
    """

    block: range
    statistics: dict[str, GroupedStatistics]
    cost: Cost
    previews: Tensor
    film: Tensor
    levels: Levels
    images: tuple[BlockImages, ...] = ()
    changed: tuple[str, ...] = ()
    machine: str = ""
    batch: int | None = None
    answers: float | None = None
    ready_seconds: float = 0.0

    def to_arrays(self) -> dict[str, Any]:
        """Return all but the cost as arrays for ``numpy.savez``."""
        arrays = {
            "previews": self.previews.numpy(),
            "film": self.film.numpy(),
            "levels": self.levels.to_array(),
            "images": np.array([str(one) for one in self.images], dtype=np.str_),
        }
        if self.batch is not None:
            arrays["batch"] = np.array(self.batch)
        for space, statistics in self.statistics.items():
            arrays |= {f"{space}/{name}": array for name, array in statistics.to_arrays().items()}
        return arrays

    @classmethod
    def from_arrays(cls, block: range, arrays: Mapping[str, Any], cost: Cost) -> BlockResult:
        """Return what `to_arrays` wrote.

        Raises:
            KeyError, ValueError: if the arrays do not fit together.
        """
        by_space: dict[str, dict[str, Any]] = {}
        for name, array in arrays.items():
            space, _, part = name.rpartition("/")
            by_space.setdefault(space, {})[part] = array
        alone = by_space.pop("")
        levels = Levels.from_array(alone["levels"])
        previews, film = (torch.from_numpy(alone[name]) for name in ("previews", "film"))
        statistics = {space: GroupedStatistics.from_arrays(part) for space, part in by_space.items()}
        images = tuple(BlockImages.parse(str(one)) for one in alone.get("images", ()))
        batch = int(alone["batch"]) if "batch" in alone else None
        return cls(block, statistics, cost, previews, film, levels, images, batch=batch)

    def as_part_of(self, n: int) -> BlockResult:
        """Return the same samples as the first of a larger trial of n; see `GroupedStatistics.as_part_of`."""
        statistics = {space: sums.as_part_of(n) for space, sums in self.statistics.items()}
        return replace(self, statistics=statistics)

    def extend(self, other: BlockResult) -> None:
        """Add the block that comes next.

        Blocks are added in the order of their indices, so that the sums are the same to the last bit
        whatever order they were drawn in.

        Raises:
            ValueError: if ``other`` does not begin where this ends.
        """
        if other.block.start != self.block.stop:
            raise ValueError(f"block {other.block} does not follow {self.block}")
        for name, sums in self.statistics.items():
            sums.merge(other.statistics[name])
        self.block = range(self.block.start, other.block.stop)
        self.cost = self.cost + other.cost
        self.previews = torch.cat([self.previews, other.previews])
        self.levels += other.levels
        self.images += other.images
        self.batch = min((one for one in (self.batch, other.batch) if one is not None), default=None)


@dataclass(frozen=True)
class Failure:
    """Why a trial has no scores.

    Attributes:
        status: ``skipped`` where sampler and model do not fit, else ``failed``.
        stage: what was being done.
        message: one sentence.
        traceback: the full text.
    """

    status: Literal["failed", "skipped"]
    stage: str
    message: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException, stage: str) -> Failure:
        """Describe an exception."""
        if isinstance(error, NotApplicable):
            return cls("skipped", stage, str(error))
        return cls("failed", stage, sentence_of(error), "".join(traceback.format_exception(error)))


@dataclass(frozen=True)
class WorkerSetup:
    """What a process needs to draw blocks; picklable.

    Attributes:
        model: what ``--model`` was given.
        reference: image set the user chose, or None.
        metrics: names of the scores; the model's default where empty.
        plugins: plugin files to load.
        keep_features: keep every feature vector, not only where a metric needs them.
        held_out: images of the same law as the reference that the user named, or None.
        timeout: seconds that a step of a block may take in a process of its own; made of what is measured
            where None.
        backs_off: whether a block that memory does not hold is drawn in parts.
    """

    model: str
    reference: str | None
    metrics: tuple[str, ...]
    plugins: tuple[Path, ...] = ()
    keep_features: bool = False
    held_out: str | None = None
    timeout: float | None = None
    backs_off: bool = False
