"""Records: one JSON file a trial, and the data frame they make.

A record is written to a temporary file and renamed, so that a kill leaves either the old one or the new one.
Blocks of trials under way are kept beside the records until their trial is whole.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from bench.errors import BenchError
from bench.metrics.base import Score
from bench.metrics.groups import GroupedStatistics
from bench.trial import BlockResult, Cost, Trial

FORMAT = 1
"""Of a record; a reader that meets a greater one says so."""

FLOOR = "real images"
"""``sampler`` of a record that scores real images in the place of samples."""


@dataclass(frozen=True)
class Record:
    """What is known of one trial.

    Attributes:
        trial: the fields that define it, and its ``key``.
        status: ``done``, ``failed`` or ``skipped``.
        message: one sentence for a status that is not ``done``.
        sampler: rule, parameters, label, order, source, plugin and version; its name is `FLOOR` for real
            images.
        model: name and weights hash.
        grid: steps taken and distinct levels.
        provenance: what would make the record stale if it changed.
        scores: by metric, the first is the table's.
        cost: calls, seconds and memory.
        environment: versions, device, commit, command, time.
        failure: stage and traceback where there are any.
    """

    trial: Mapping[str, Any]
    status: str
    message: str = ""
    sampler: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Score] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    failure: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Hash of what defines the trial."""
        return str(self.trial["key"])

    @property
    def name(self) -> str:
        """File name without suffix: readable, and unique by its key."""
        parts = (self.trial["model"], self.sampler.get("label", ""), f"S{self.trial['steps']}")
        text = re.sub(r"[^A-Za-z0-9.=]+", "-", "-".join(map(str, parts))).strip("-")
        return f"{text[-80:]}-{self.key}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values for ``json.dumps``."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"format": FORMAT, **fields, "scores": {k: s.to_json() for k, s in self.scores.items()}}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Record:
        """Return what `to_json` wrote.

        Raises:
            BenchError: if a newer version of the project wrote it.
        """
        known = dict(fields)
        if known.pop("format") > FORMAT:
            raise BenchError("it was written by a newer sampler-bench; upgrade to read it")
        known["scores"] = {k: Score.from_json(s) for k, s in known["scores"].items()}
        return cls(**known)


@dataclass(frozen=True)
class Unreadable:
    """A record file that could not be read.

    Attributes:
        path: of the file.
        reason: one clause.
    """

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"record {self.path} cannot be read ({self.reason}); the next run computes it anew"


class Store:
    """A folder of results: ``records/`` for trials that ended, ``blocks/`` for trials under way.

    Args:
        folder: made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = folder / "records"
        self.blocks = folder / "blocks"

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            BenchError: if they cannot be written to.
        """
        try:
            self.records.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.records):
                pass
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise BenchError(
                f"cannot write results to {self.folder}: {reason}; choose --results DIR"
            ) from error

    def read(self) -> tuple[list[Record], list[Unreadable]]:
        """Return every record, and the files that could not be read."""
        good, bad = [], []
        for path in sorted(self.records.glob("*.json")):
            try:
                good.append(Record.from_json(json.loads(path.read_text(encoding="utf-8"))))
            except BenchError as error:
                bad.append(Unreadable(path, str(error)))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                bad.append(Unreadable(path, "it is truncated or not a record"))
        return good, bad

    def write(self, record: Record, previews: Tensor | None = None) -> Path:
        """Write a record and its first images, and drop its blocks; return the record's path."""
        path = self.records / f"{record.name}.json"
        for old in self.records.glob(f"*-{record.key}.*"):
            if old.stem != path.stem:
                old.unlink()
        if previews is not None and len(previews):
            write_strip(path.with_suffix(".png"), previews)
        text = json.dumps(record.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(path, (text + "\n").encode())
        if record.status == "done":
            self.drop_blocks(record.key)
        return path

    def previews(self, record: Record) -> Tensor | None:
        """Return the first images of a trial, uint8 (k, C, H, W), where they were kept."""
        path = self.records / f"{record.name}.png"
        return read_strip(path) if path.is_file() else None

    def write_block(self, trial: Trial, state: str, result: BlockResult) -> None:
        """Keep a block; ``state`` is a hash of the provenance it was drawn under."""
        arrays: dict[str, Any] = {"previews": result.previews.numpy()}
        arrays["cost"] = np.array(json.dumps(asdict(result.cost)))
        for space, statistics in result.statistics.items():
            arrays |= {f"{space}/{name}": array for name, array in statistics.to_arrays().items()}
        path = self._block_path(trial.key, state, result.block)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(path) as temporary:
            with temporary.open("wb") as file:
                np.savez(file, **arrays)
            temporary.replace(path)

    def read_blocks(self, trial: Trial, state: str) -> list[BlockResult]:
        """Return the blocks that were kept, in order and without overlap; a damaged file is no block."""
        found: list[BlockResult] = []
        paths = (self.blocks / f"{trial.key}-{state}").glob("*-*.npz")
        # The longest of those that begin alike first: it holds what the others hold.
        for start, minus_stop, path in sorted((*_span(path), path) for path in paths):
            if found and start < found[-1].block.stop:
                continue
            result = _read_block(path, range(start, -minus_stop))
            if result is not None:
                found.append(result)
        return found

    def compact_blocks(self, trial: Trial, state: str, prefix: BlockResult) -> None:
        """Keep one file in the place of all blocks that ``prefix`` is made of."""
        self.write_block(trial, state, prefix)
        for path in (self.blocks / f"{trial.key}-{state}").glob("*-*.npz"):
            start, minus_stop = _span(path)
            if (start, -minus_stop) != (
                prefix.block.start,
                prefix.block.stop,
            ) and -minus_stop <= prefix.block.stop:
                path.unlink()

    def drop_blocks(self, key: str) -> None:
        """Forget the blocks of a trial."""
        for folder in self.blocks.glob(f"{key}-*"):
            shutil.rmtree(folder, ignore_errors=True)
        if self.blocks.is_dir() and not any(self.blocks.iterdir()):
            self.blocks.rmdir()

    def _block_path(self, key: str, state: str, block: range) -> Path:
        return self.blocks / f"{key}-{state}" / f"{block.start:08d}-{block.stop:08d}.npz"


def load_results(folder: str | Path = "results") -> pd.DataFrame:
    """Return a data frame with one row a trial.

    Columns: ``model, weights, sampler, label, parameters, variance, eta, clip, spacing, steps,
    distinct_levels, network_calls, n, seed, batch, precision, device, metric, score, score_se,
    score_debiased, feature_space, reference, sampling_seconds, model_seconds, sampler_seconds,
    scoring_seconds, images_per_second, peak_bytes, status, message, key, commit, dirty, versions...``;
    besides, every metric under its own name with ``_se`` and ``_debiased``. Seconds are of the whole trial.

    Args:
        folder: what ``--results`` was given.
    """
    records, _ = Store(Path(folder)).read()
    return frame(records)


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return the data frame of some records; see `load_results`."""
    return pd.DataFrame([_row(record) for record in records])


def _row(record: Record) -> dict[str, Any]:
    trial, sampler, cost, environment = record.trial, record.sampler, record.cost, record.environment
    parameters = sampler.get("parameters", {})
    row: dict[str, Any] = {
        "model": trial["model"],
        "weights": record.model.get("weights"),
        "sampler": sampler.get("name"),
        "label": sampler.get("label"),
        "parameters": ",".join(f"{k}={v}" for k, v in parameters.items()),
        "variance": parameters.get("variance"),
        "eta": parameters.get("eta"),
        "clip": parameters.get("clip"),
        "spacing": trial["spacing"],
        "steps": trial["steps"],
        "distinct_levels": record.grid.get("distinct_levels"),
        "network_calls": cost.get("calls"),
        **{name: trial[name] for name in ("n", "seed", "batch", "precision", "device")},
    }
    for place, (name, score) in enumerate(record.scores.items()):
        if place == 0:
            row |= {
                "metric": name,
                "score": score.value,
                "score_se": score.se,
                "score_debiased": score.debiased,
            }
            row |= {"feature_space": score.space, "reference": score.reference}
        row |= {name: score.value, f"{name}_se": score.se, f"{name}_debiased": score.debiased}
    sampling = cost.get("sampling_seconds")
    row |= {name: cost.get(name) for name in ("sampling_seconds", "model_seconds")}
    row["sampler_seconds"] = sampling - cost["model_seconds"] if sampling is not None else None
    row["scoring_seconds"] = cost.get("scoring_seconds")
    row["images_per_second"] = trial["n"] / sampling if sampling else None
    row["peak_bytes"] = cost.get("peak_bytes")
    row |= {"status": record.status, "message": record.message, "key": record.key}
    row |= {name: environment.get(name) for name in ("device_name", "commit", "dirty", "finished", "command")}
    return row | {f"version_{name}": version for name, version in environment.get("versions", {}).items()}


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill, sees the old content or the new."""
    with _temporary(path) as temporary:
        temporary.write_bytes(content)
        temporary.replace(path)


def write_strip(path: Path, images: Tensor) -> None:
    """Write uint8 images (k, C, H, W) side by side as a lossless PNG."""
    k, channels, height, width = images.shape
    strip = images.permute(2, 0, 3, 1).reshape(height, k * width, channels).numpy()
    picture = Image.fromarray(strip[..., 0] if channels == 1 else strip)
    with _temporary(path) as temporary:
        picture.save(temporary, format="PNG")
        temporary.replace(path)


def read_strip(path: Path) -> Tensor:
    """Return the square images that `write_strip` put side by side."""
    with Image.open(path) as picture:
        strip = torch.from_numpy(np.array(picture))
    strip = strip[..., None] if strip.ndim == 2 else strip
    height, width, channels = strip.shape
    return strip.reshape(height, width // height, height, channels).permute(1, 3, 0, 2)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` that is gone in the end."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _span(path: Path) -> tuple[int, int]:
    """Return (start, -stop) of a block file's name."""
    start, _, stop = path.stem.partition("-")
    return int(start), -int(stop)


def _read_block(path: Path, block: range) -> BlockResult | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        cost = Cost(**json.loads(str(arrays.pop("cost"))))
        previews = torch.from_numpy(arrays.pop("previews"))
        by_space: dict[str, dict[str, Any]] = {}
        for name, array in arrays.items():
            space, _, part = name.rpartition("/")
            by_space.setdefault(space, {})[part] = array
        statistics = {space: GroupedStatistics.from_arrays(part) for space, part in by_space.items()}
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        return None
    return BlockResult(block, statistics, cost, previews)


def stale_fields(record: Record, provenance: Mapping[str, Any]) -> list[str]:
    """Return the names of the provenance fields that differ from what is true now."""
    return [name for name, value in provenance.items() if record.provenance.get(name) != value]
