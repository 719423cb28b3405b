"""Records: one JSON file a trial, and the data frame they make.

A record is written to a temporary file and renamed, so that a kill leaves either the old one or the new one.
Blocks of trials under way are kept beside the records until their trial is whole; see `bench.records.blocks`.
"""

from __future__ import annotations

import json
import struct
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from bench.errors import BenchError, sentence_of
from bench.files.atomic import TEMPORARY, uninterrupted, write_atomically, write_text, writing
from bench.metrics.reference import UNREADABLE
from bench.records.blocks import drop_blocks
from bench.records.record import Record, sealed
from bench.records.running import Running


@dataclass(frozen=True)
class Unreadable:
    """A record file that could not be read.

    Attributes:
        path: the path of the file.
        reason: one clause.
    """

    path: Path
    reason: str

    @property
    def finding(self) -> str:
        """What is wrong with the file, to follow its path."""
        return f"cannot be read: {self.reason}"

    def __str__(self) -> str:
        return f"record {self.path} cannot be read ({self.reason}); the next run computes it anew"


class Twin(Unreadable):
    """A record file of a trial that another file holds too; the reason is the other file's name."""

    @property
    def finding(self) -> str:
        """What is wrong with the file, to follow its path."""
        return f"holds the trial of {self.reason} a second time"

    def __str__(self) -> str:
        return f"record {self.path} {self.finding} and is not counted; delete it"


def _refuse(constant: str) -> None:
    """Raise ValueError: NaN and infinities are no JSON, and no version wrote them."""
    raise ValueError(constant)


class Store:
    """A folder of results: ``records/`` of trials that ended, ``training/`` of models, ``blocks/`` under way.

    ``features/`` holds what was asked to be kept of the samples, ``running/`` names the runs at work.

    Args:
        folder: made when first written to.

    Attributes:
        running: the runs at work in the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = folder / "records"
        self.blocks = folder / "blocks"
        self.training = folder / "training"
        self.features = folder / "features"
        self.running = Running(folder / "running")

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
        """Return every record, and the files that could not be read.

        Of several files of one trial, as copies are, the one under the trial's own name counts.
        """
        read = {path: read_record(path) for path in sorted(self.records.glob("*.json"))}
        paths: dict[str, Path] = {}
        for path, one in read.items():
            if isinstance(one, Record) and (one.key not in paths or path.stem == one.name):
                paths[one.key] = path
        for path, one in read.items():
            if isinstance(one, Record) and paths[one.key] != path:
                read[path] = Twin(path, paths[one.key].name)
        found = list(read.values())
        return [r for r in found if isinstance(r, Record)], [r for r in found if isinstance(r, Unreadable)]

    def write(self, record: Record, previews: Tensor | None = None, film: Tensor | None = None) -> Path:
        """Write a record, its first images and its film, and drop its blocks; return the record's path."""
        path = self.records / f"{record.name}.json"
        for old in self.records.glob(f"*-{record.key}.*"):
            if not old.name.startswith(f"{record.name}.") and old.suffix != TEMPORARY:
                old.unlink(missing_ok=True)
        for suffix, images in ((".png", previews), (".film.png", film)):
            if images is not None and len(images):
                write_strip(self.records / f"{record.name}{suffix}", images)
        text = json.dumps(sealed(record.to_json()), indent=1, ensure_ascii=False, allow_nan=False)
        write_text(path, text + "\n", lasting=True)  # its blocks are dropped
        if record.status == "done":
            drop_blocks(self.blocks, record.key)
        return path

    def previews(self, record: Record) -> Tensor | None:
        """Return the first images of a trial, uint8 (k, C, H, W), where they were kept."""
        path = self.records / f"{record.name}.png"
        return read_strip(path) if path.is_file() else None

    def film(self, record: Record) -> Tensor | None:
        """Return the frames of a trial's sample 0, uint8 (frames, C, H, W), where they were kept.

        A film of real images goes the other way: from the image to noise.
        """
        path = self.records / f"{record.name}.film.png"
        return read_strip(path) if path.is_file() else None

    def write_features(self, record: Record, space: str, features: NDArray[np.float32]) -> Path:
        """Keep the feature vectors (n, d) of a trial as an .npy file and return its path."""
        return self._write_array(self._features_path(record, space), features)

    def read_features(self, record: Record, space: str) -> NDArray[np.float32]:
        """Return the feature vectors (n, d) of a trial that were kept.

        Raises:
            BenchError: if there are none, or damaged ones.
        """
        path = self._features_path(record, space)
        try:
            rows: NDArray[np.float32] = np.load(path, allow_pickle=False)
        except UNREADABLE as error:
            raise BenchError(
                f"{path} cannot be read: {sentence_of(error)}; delete it, and the same command draws it anew"
            ) from None
        return rows

    def has_features(self, record: Record, spaces: Iterable[str]) -> bool:
        """Return whether a trial's feature vectors were kept; one that was not drawn has none to keep."""
        return record.status != "done" or all(self._features_path(record, s).is_file() for s in spaces)

    def write_influence(self, record: Record, metric: str, values: NDArray[np.float64]) -> Path:
        """Keep the influence values (n,) of a trial's score as an .npy file and return its path."""
        return self._write_array(self._influence_path(record, metric), values)

    def influence(self, record: Record, metric: str) -> NDArray[np.float64] | None:
        """Return the influence values (n,) of a trial's score; None where none were kept, or damaged ones."""
        try:
            values = np.asarray(np.load(self._influence_path(record, metric), allow_pickle=False))
        except UNREADABLE:
            return None
        return values if values.shape == (record.trial.n,) else None

    def training_table(self, model: str) -> Path:
        """Return where the table of a model's training is kept."""
        return self.training / f"{file_slug(model)}.csv"

    def keep_training(self, model: str, table: Path) -> Path:
        """Copy the table of a model's training and return the copy's path."""
        path = self.training_table(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, table.read_bytes())
        return path

    def drop_features(self, record: Record) -> None:
        """Forget the features and influence values of a trial that is drawn again."""
        for path in self.features.glob(f"*-{record.key}-*.npy"):
            path.unlink()

    def _features_path(self, record: Record, space: str) -> Path:
        return self.features / f"{record.name}-{file_slug(space)}.npy"

    def _influence_path(self, record: Record, metric: str) -> Path:
        return self.features / f"{record.name}-{file_slug(metric)}.influence.npy"

    def _write_array(self, path: Path, array: NDArray[Any]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with uninterrupted(), writing(path) as file:
            np.save(file, array)
        return path


def read_record(path: Path) -> Record | Unreadable:
    """Return the record in a file, or why there is none."""
    try:
        return Record.from_json(json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse))
    except BenchError as error:
        return Unreadable(path, str(error))
    except _NO_RECORD:
        return Unreadable(path, "it is truncated or not a record")


_NO_RECORD = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What reading something that is no record ends in."""


def file_slug(text: str) -> str:
    """Return a text as part of a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text).strip("-")


def write_strip(path: Path, images: Tensor) -> None:
    """Write uint8 images (k, C, H, W) side by side as a lossless PNG that says their shape.

    One channel is grey and three are colours; others lie below each other in grey.
    """
    _, channels, height, width = images.shape
    info = PngInfo()
    info.add_text("shape", f"{channels},{height},{width}")
    strip = shown_images(images).permute(2, 0, 3, 1).flatten(1, 2).numpy()
    picture = Image.fromarray(strip[..., 0] if strip.shape[-1] == 1 else strip)
    with writing(path, lasting=True) as file:
        picture.save(file, format="PNG", pnginfo=info)


def read_strip(path: Path) -> Tensor:
    """Return the images (k, C, H, W) that `write_strip` put side by side; square ones if it says no shape.

    Raises:
        BenchError: if the file is damaged.
    """
    try:
        with Image.open(path) as picture:
            strip, told = torch.from_numpy(np.array(picture)), picture.info.get("shape")
        strip = strip[..., None] if strip.ndim == 2 else strip
        side, planes = strip.shape[0], strip.shape[2]
        channels, height, width = map(int, told.split(",")) if told else (planes, side, side)
        shown = strip.reshape(side, -1, width, planes).permute(1, 3, 0, 2)
        return shown.reshape(len(shown), channels, height, width)
    except _NO_STRIP as error:
        reason = f"{type(error).__name__} while it was read"
        raise BenchError(
            f"picture {path} is damaged ({reason}); delete it, or the record beside it to draw it anew"
        ) from None


_NO_STRIP = (
    *(OSError, ValueError, RuntimeError, IndexError, TypeError, SyntaxError, EOFError, AttributeError),
    *(zlib.error, struct.error, Image.DecompressionBombError),
)
"""What Pillow and PyTorch raise of a file that is no strip of pictures."""


def shown_images(images: Tensor) -> Tensor:
    """Return images (k, C, H, W) with one channel or three: other numbers below each other in one."""
    k, channels, height, width = images.shape
    return images if channels in (1, 3) else images.reshape(k, 1, channels * height, width)
