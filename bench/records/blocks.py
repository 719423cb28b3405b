"""Blocks of cells under way: one .npz a block, kept until its cell is whole: a kill loses one at most."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.files.atomic import uninterrupted, writing
from bench.metrics.reference import UNREADABLE
from bench.records.trial import Cost

Arrays = Mapping[str, Any]


def write_block(folder: Path, block: range, arrays: Arrays, cost: Cost) -> None:
    """Keep what is left of a block; a kill leaves all of it or nothing.

    Args:
        folder: the folder of the cell's blocks.
        block: indices of its images.
        arrays: what is kept, by name; the name ``cost`` is taken.
        cost: what the block took.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with uninterrupted(), writing(_path(folder, block)) as file:
        np.savez(file, **{**arrays, "cost": np.array(json.dumps(asdict(cost)))})


def read_blocks(
    folder: Path, wanted: Callable[[range], bool] = lambda block: True
) -> Iterator[tuple[range, dict[str, Any], Cost]]:
    """Yield the blocks that were kept, in order and without overlap; a damaged file is no block.

    Args:
        folder: the folder of the cell's blocks.
        wanted: False for indices that need not be read.
    """
    reached = 0
    # The longest of those that begin alike first: it holds what the others hold.
    for block in sorted(_kept(folder), key=lambda block: (block.start, -block.stop)):
        if block.start < reached or not wanted(block):
            continue
        try:
            with np.load(_path(folder, block), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            cost = Cost.from_json(json.loads(str(arrays.pop("cost"))))
        except (*UNREADABLE, TypeError):
            continue
        reached = block.stop
        yield block, arrays, cost


def merge_blocks(folder: Path, whole: range, arrays: Arrays, cost: Cost) -> None:
    """Keep one file in the place of all the blocks that lie within ``whole``."""
    write_block(folder, whole, arrays, cost)
    for block in _kept(folder):
        if block != whole and block.stop <= whole.stop:
            _path(folder, block).unlink(missing_ok=True)  # another run may have merged it too


def drop_blocks(blocks: Path, key: str) -> None:
    """Forget every block of the cell with a key, in the folder of all cells' blocks."""
    for folder in blocks.glob(f"{key}-*"):
        drop_folder(folder)


def drop_folder(folder: Path) -> None:
    """Forget the blocks of one cell, if there are any."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # there are others, or there is none
        folder.parent.rmdir()


def _path(folder: Path, block: range) -> Path:
    return folder / f"{block.start:08d}-{block.stop:08d}.npz"


def _kept(folder: Path) -> list[range]:
    return [range(*map(int, path.stem.split("-"))) for path in folder.glob("*-*.npz")]
