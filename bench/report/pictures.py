"""The picture grid: samplers by steps down, one initial noise along each column."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bench.record import FLOOR
from bench.report.groups import Group
from bench.store import Store, write_atomically

TILE = 40
"""Least side of an enlarged image in pixels."""
GAP, MARGIN, LABEL = 3, 12, 190


def picture_grid(group: Group, store: Store, columns: int = 12) -> Image.Image | None:
    """Return the first samples of every cell, enlarged; None where no pictures were kept.

    Along a column every trial starts from the same noise, so the columns show what a sampler changes.
    """
    rows: list[tuple[str, str, Tensor]] = []
    for steps in group.columns:
        for label in group.rows:
            cell = group.cells.get((label, steps))
            previews = store.previews(cell.record) if cell is not None else None
            if previews is not None:
                rows.append((f"S={steps}", label, previews[:columns]))
    if not rows:
        return None
    real = store.previews(group.floor_record) if group.floor_record is not None else None
    if real is not None:
        rows.append(("data", FLOOR, real[:columns]))
    scale = max(1, -(-TILE // rows[0][2].shape[-1]))
    side = rows[0][2].shape[-1] * scale
    width = LABEL + max(len(images) for _, _, images in rows) * (side + GAP) + MARGIN
    breaks = [i > 0 and rows[i][0] != rows[i - 1][0] for i in range(len(rows))]
    height = 2 * MARGIN + 24 + len(rows) * (side + GAP) + 10 * sum(breaks)
    picture = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    draw.text((MARGIN, MARGIN), f"{group.title.partition(':')[0]}: one initial noise a column", "black", font)
    y = MARGIN + 24
    for (column, label, images), new in zip(rows, breaks, strict=True):
        y += 10 * new
        draw.text((MARGIN, y + side / 2), column, "#777777", font, anchor="lm")
        draw.text((MARGIN + 58, y + side / 2), label, "black", font, anchor="lm")
        for place, image in enumerate(images):
            picture.paste(_enlarged(image, scale), (LABEL + place * (side + GAP), y))
        y += side + GAP
    return picture


def save_picture(picture: Image.Image, path: Path) -> Path:
    """Write a picture as PNG and return the path."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
    return path


def _enlarged(image: Tensor, scale: int) -> Image.Image:
    """Return a uint8 image (C, H, W) with every pixel repeated: what the network made, no smoothing."""
    large = image.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    pixels = large.permute(1, 2, 0).to(torch.uint8).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
