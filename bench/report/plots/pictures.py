"""Sheets of pictures: the first samples of every cell, and one sample's way from noise to image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bench.records.record import FLOOR, Record
from bench.records.store import Store, shown_images
from bench.records.trial import is_points
from bench.report.tables.table import Table

TILE = 40
"""Least side of an enlarged image in pixels."""


MOST = 48
"""Strips of a sheet: of a table with more cells some columns are shown."""


GAP, MARGIN, LABEL = 3, 12, 190


@dataclass(frozen=True)
class Row:
    """One row of a sheet of pictures.

    Attributes:
        section: rows of one section follow each other; its name stands before each.
        label: what the row shows.
        images: uint8 (k, C, H, W).
    """

    section: str
    label: str
    images: Tensor


def picture_grid(table: Table, store: Store, columns: int = 12) -> Image.Image | None:
    """Return the first samples of every cell, enlarged; None where no pictures were kept, or points.

    Along a column every trial starts from the same noise, so the columns show what a sampler changes.
    """
    rows = [Row(s, label, images[:columns]) for s, label, images in _kept(table, store.previews)]
    if not rows:
        return None
    real = store.previews(table.floor_record) if table.floor_record is not None else None
    if real is not None:
        rows.append(Row("data", FLOOR, real[:columns]))
    return _sheet(rows, f"{_model(table)}: one initial noise a column{_left_out(table)}")


def film_strips(table: Table, store: Store) -> Image.Image | None:
    """Return sample 0 of every cell on its way from noise to image; None where no films were kept, or points.

    First an image on its way to noise, x_t at equal parts of T; then, for every sampler and S, x after equal
    parts of the steps. All trials start from one noise, and it is what the image ends in.
    """
    rows = [Row(*kept) for kept in _kept(table, store.film)]
    if not rows:
        return None
    forward = store.film(table.floor_record) if table.floor_record is not None else None
    if forward is not None:
        rows.insert(0, Row("data", "to noise, t = 0 to T", forward))
    title = f"{_model(table)}: from noise to image, x after equal parts of the steps{_left_out(table)}"
    return _sheet(rows, title)


def _kept(table: Table, pictures: Callable[[Record], Tensor | None]) -> Iterator[tuple[str, str, Tensor]]:
    """Yield what is kept of every cell, by S and sampler."""
    for steps in _columns(table):
        for label in table.rows:
            cell = table.cells.get((label, steps))
            images = pictures(cell.record) if cell is not None else None
            if images is not None and not is_points(images.shape[1:]):
                yield f"S={steps}", label, images


def _columns(table: Table) -> list[int]:
    """Return the numbers of steps that are shown: all, or of a large table as many as make `MOST` strips."""
    columns = list(table.columns)
    count = min(len(columns), max(1, MOST // len(table.rows)))
    if count == 1:
        return [columns[len(columns) // 2]]
    return [columns[round(k * (len(columns) - 1) / (count - 1))] for k in range(count)]


def _left_out(table: Table) -> str:
    shown = _columns(table)
    if len(shown) == len(table.columns):
        return ""
    return f"; S = {', '.join(map(str, shown))} of {len(table.columns)}"


def _model(table: Table) -> str:
    return table.trial.model


def _sheet(rows: Sequence[Row], title: str) -> Image.Image:
    """Return rows of pictures, every pixel repeated, with their names before them."""
    _, _, tall, wide = shown_images(rows[0].images).shape
    scale = max(1, -(-TILE // wide))
    tall, wide = tall * scale, wide * scale
    font = ImageFont.load_default(14)
    named = int(max(font.getlength(row.label) for row in rows)) + 1
    left = max(LABEL, MARGIN + 58 + named + GAP)
    width = left + max(len(row.images) for row in rows) * (wide + GAP) + MARGIN
    breaks = [i > 0 and rows[i].section != rows[i - 1].section for i in range(len(rows))]
    height = 2 * MARGIN + 24 + len(rows) * (tall + GAP) + 10 * sum(breaks)
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN), title, "black", font)
    y = MARGIN + 24
    for row, new in zip(rows, breaks, strict=True):
        y += 10 * new
        draw.text((MARGIN, y + tall / 2), row.section, "#777777", font, anchor="lm")
        draw.text((MARGIN + 58, y + tall / 2), row.label, "black", font, anchor="lm")
        for place, image in enumerate(row.images):
            picture.paste(_enlarged(image, scale), (left + place * (wide + GAP), y))
        y += tall + GAP
    return picture


def _enlarged(image: Tensor, scale: int) -> Image.Image:
    """Return a uint8 image (C, H, W) with every pixel repeated: what the network made, no smoothing."""
    (image,) = shown_images(image.unsqueeze(0))
    large = image.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    pixels = large.permute(1, 2, 0).to(torch.uint8).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
