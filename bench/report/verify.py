"""Whether a results folder still is what its records make: tables to the bit, pictures to the eye."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from bench.errors import BenchError, UsageError
from bench.files.atomic import readable
from bench.metrics.levels import Levels
from bench.published.presets import PRESETS
from bench.records.pack import KINDS
from bench.records.record import FORMAT, ImagesInfo, Record, is_broken
from bench.records.store import Store
from bench.records.trial import BlockImages
from bench.report.page.html import report
from bench.report.plots.gallery import draw_files
from bench.report.plots.training import models_of, trainings
from bench.report.tables.artefacts import BESIDE, table_files
from bench.report.tables.table import tables_of
from bench.stats.resampling import jackknife
from bench.stats.score import Score

BLOCK = 8
"""Side in pixels of the squares whose means are compared: smaller than a marker, larger than a hair."""
CLOSE = 40.0
"""Largest difference of two squares' means, of 255, that another release of the drawing library may make."""


FOREIGN = "is made by no record"
"""Why a file should not be where it is."""


@dataclass(frozen=True)
class Mismatch:
    """One file that is not what it should be.

    Attributes:
        path: the path of the file.
        reason: one clause.
    """

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


@dataclass(frozen=True)
class Checked:
    """What `verify` found in one folder.

    Attributes:
        folder: that was looked at.
        files: number of files that were made again.
        records: number of records they were made from.
        findings: what is wrong, in the order of the files.
    """

    folder: Path
    files: int
    records: int
    findings: tuple[Mismatch, ...]


def results_below(folder: Path) -> list[Path]:
    """Return the folder itself if it holds results, else those below it that do, by name.

    Raises:
        UsageError: if there are none.
    """
    found = sorted({path.parent.parent for path in folder.glob("**/records/*.json")})
    if folder in found:
        return [folder]
    if not found:
        raise UsageError(f"no records in or below {folder}; name a folder that --results was given")
    return found


def verify(folder: Path) -> Checked:
    """Make every table, plot and report of a folder again and compare it with the one there.

    Tables and reports must be equal byte for byte, but for the drawings in a report; plots and pictures may
    differ as little as two releases of the drawing library do.
    """
    store = Store(folder)
    records, unreadable = store.read()
    findings = [Mismatch(damage.path, damage.finding) for damage in unreadable]
    findings += [found for record in records for found in _check_record(store, record)]
    findings += [
        Mismatch(store.training_table(one.model), f"is damaged: {one.damage}")
        for one in trainings(store, models_of(records))
        if one.damage
    ]
    if torn := list(_damaged_pictures(store, records)):  # no plot or report can be made of them
        return Checked(folder, 0, len(records), (*findings, *torn))
    here = sorted(path for name in ("tables", "plots") for path in _files_in(folder / name))
    presets = sorted({name for name in PRESETS for path in here if path.stem == f"{BESIDE}{name}"})
    texts = {folder / "tables" / name: text for name, text in table_files(records, presets).items()}
    page = folder / "report.html"
    if page.is_file():
        here.append(page)
        texts[page] = report(store, records, _presets_of(page))
    for path, text in texts.items():
        findings += _compare_text(path, text)
    with tempfile.TemporaryDirectory() as scratch:
        drawn: dict[Path, Path] = {}
        for suffix, dark in _forms(path for path in here if path.parent.name == "plots"):
            theme = "dark" if dark else "light"
            anew = {
                folder / "plots" / path.name: path
                for path in draw_files(tables_of(records), store, Path(scratch), suffix, theme)
            }
            if any(path in here and _form(path) == (suffix, dark) for path in anew):
                drawn |= anew  # else what has that ending is others' alone
        for path, made in drawn.items():
            findings += _compare_picture(path, made)
    made_again = set(texts) | set(drawn)
    findings += [Mismatch(path, FOREIGN) for path in here if path not in made_again]
    return Checked(folder, len(made_again), len(records), tuple(findings))


SYSTEMS = ("Thumbs.db", "desktop.ini")
"""Files that a system leaves in a folder; others, and files half written, begin with a dot."""


def _files_in(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that somebody may have put there for others to read."""
    for path in folder.glob("*"):
        if path.is_file() and not path.name.startswith(".") and path.name not in SYSTEMS:
            yield path


def _forms(plots: Iterable[Path]) -> list[tuple[str, bool]]:
    """Return the forms in which plots are drawn that some files have: (suffix, whether on dark paper)."""
    return sorted({_form(path) for path in plots if path.suffix in KINDS["plots"]})


def _form(path: Path) -> tuple[str, bool]:
    return path.suffix[1:], path.stem.endswith("-dark")


def _damaged_pictures(store: Store, records: Iterable[Record]) -> Iterator[Mismatch]:
    """Find the pictures and films of trials that cannot be read."""
    for record in records:
        for suffix, read in ((".png", store.previews), (".film.png", store.film)):
            try:
                read(record)
            except BenchError:
                yield Mismatch(store.records / f"{record.name}{suffix}", "cannot be read as a picture")


def _presets_of(page: Path) -> list[str]:
    """Return the presets that a report was asked to show: it says so in its head."""
    found = re.search(r'<meta name="presets" content="([^"]*)">', page.read_text(errors="replace")[:5000])
    return [name for name in found[1].split() if name in PRESETS] if found else []


def _check_record(store: Store, record: Record) -> Iterator[Mismatch]:
    """Find a record whose key is not the hash of its trial: somebody changed one of the two."""
    path = store.records / f"{record.name}.json"
    if not path.is_file():
        yield Mismatch(path, "is the name that the record's content asks for, and there is no such file")
    elif is_broken(json.loads(path.read_text(encoding="utf-8"))):
        yield Mismatch(path, "was changed after it was written: its digest is not that of its content")
    for name, score in record.scores.items():
        if reason := _impossible(score):
            yield Mismatch(path, f"has an impossible {name}: {reason}")
    if reason := _unlike_its_blocks(record.images):
        yield Mismatch(path, reason)
    told = record.kind == "bound" and record.format < FORMAT  # what it says of its images was put in order
    if not told and record.trial.key != record.key:
        yield Mismatch(path, f"has the key {record.key}, and its trial's is {record.trial.key}")


def _unlike_its_blocks(images: ImagesInfo) -> str:
    """Return in what the sums of a trial's images are not those of its blocks; empty where they are."""
    try:
        blocks = [BlockImages.parse(text) for text in images.blocks or ()]
    except ValueError:
        return "tells of its blocks of images in a form that no version writes"
    if blocks and ImagesInfo.of(sum((one.levels for one in blocks), Levels()), blocks) != images:
        return "has a mean, deviation or share outside of its images that is not that of its blocks"
    return ""


FAR = 0.2
"""Part of a score by which its leave-one-out values may lie off it: bias moves them by some per cent."""

LEAST_ERROR = 1 / 3
"""Part of the jackknife's error that is possible for a score with an error of another kind: that of KID, by
Hoeffding's decomposition, is 0.8 of it where few samples are like the reference."""


def _impossible(score: Score) -> str:
    """Return why a score cannot be what its own leave-one-out values make; empty where it can."""
    left = score.leave_one_out
    if len(left) < 2 or not math.isfinite(score.value):
        return ""
    mean, spread = math.fsum(left) / len(left), max(left) - min(left)
    if abs(score.value - mean) > max(FAR * abs(mean), 5 * spread):
        return f"{score.value:.6g}, where it is {mean:.6g} on average with a part of the samples left out"
    found = jackknife(score.value, left)
    corrected = score.debiased != score.value and math.isclose(score.debiased, found.debiased, rel_tol=1e-9)
    if score.se < found.se * (0.999 if corrected else LEAST_ERROR):
        return f"an error of {score.se:.3g}, where the values without parts of the samples say {found.se:.3g}"
    return ""


def _compare_text(path: Path, text: str) -> Iterator[Mismatch]:
    if not path.is_file():
        yield Mismatch(path, "is missing")
        return
    there, text = path.read_bytes().decode(errors="replace"), readable(text)
    if path.suffix == ".html":
        there, text = _without_drawings(there), _without_drawings(text)
    if there != text:
        yield Mismatch(path, f"differs from what the records make: {_first_difference(there, text)}")


def _first_difference(there: str, text: str) -> str:
    for number, (a, b) in enumerate(zip(there.splitlines(), text.splitlines(), strict=False), start=1):
        if a != b:
            at = next(i for i, (x, y) in enumerate(zip(f"{a}\0", f"{b}\0", strict=False)) if x != y)
            start = max(0, at - 20)
            return f"line {number} has {a[start : at + 40]!r} where {b[start : at + 40]!r} belongs"
    longer = "more" if len(there) > len(text) else "fewer"
    return f"it has {longer} lines than it should"


def _without_drawings(page: str) -> str:
    """Return a page without the content of its svg elements, which another release draws otherwise."""
    head, *rest = page.split("<svg ")
    return head + "".join(f"<svg{part.partition('</svg>')[2]}" for part in rest)


def _compare_picture(path: Path, made: Path) -> Iterator[Mismatch]:
    if not path.is_file():
        yield Mismatch(path, "is missing")
    elif path.read_bytes() == made.read_bytes():
        return
    elif path.suffix != ".png":
        yield Mismatch(path, "differs from what the records make, and only PNG can be compared by eye")
    else:
        reason = picture_difference(path, made)
        if reason:
            yield Mismatch(path, reason)


def picture_difference(a: Path, b: Path) -> str:
    """Return in what two pictures differ to the eye; empty where they do not.

    Means of squares of 8 x 8 pixels are compared: a line drawn a fraction of a pixel aside passes, a marker
    in another place does not.
    """
    try:
        first, second = _pixels(a), _pixels(b)
    except (UnidentifiedImageError, OSError):
        return "cannot be read as a picture"
    if first.shape != second.shape:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (first.shape, second.shape)]
        return f"is {sizes[0]} pixels where the records make {sizes[1]}"
    difference = np.abs(_squares(first) - _squares(second))
    if difference.max() <= CLOSE:
        return ""
    row, column = np.unravel_index(int(difference.max(axis=2).argmax()), difference.shape[:2])
    return f"differs from what the records make, most around pixel ({column * BLOCK}, {row * BLOCK})"


def _pixels(path: Path) -> npt.NDArray[np.float64]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.float64)


def _squares(pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    height, width = (side // BLOCK * BLOCK for side in pixels.shape[:2])
    cut = pixels[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, 3)
    mean: npt.NDArray[np.float64] = cut.mean(axis=(1, 3))
    return mean
