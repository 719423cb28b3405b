"""The leaderboard as a folder of files: a page, its records, and its lines as CSV."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench.errors import BenchError, UsageError
from bench.files.atomic import as_asked, write_text
from bench.report.page.details import safe
from bench.report.page.html import rendered_page
from bench.report.site.boards import Board, boards_of
from bench.report.site.page import COLUMNS, site_page
from bench.report.site.sources import Source

PAGE = "index.html"
GENERATOR = "sampler-bench leaderboard"
"""What a page says that it is made by: a folder whose page says so may be written anew."""


STYLES = ("report", "leaderboard")


def write_site(sources: Sequence[Source], out: Path, title: str = "Leaderboard") -> list[Board]:
    """Write the site and return its boards; what was there before stays until the new one is whole.

    Equal sources give equal files: they hold no time of their making. Whatever a record says is text.

    Args:
        sources: the results folders, each found without fault.
        out: the folder, new, empty or an earlier site.
        title: heads the page.

    Raises:
        UsageError: if the folder holds anything else.
        BenchError: if no trial has a score, or the site cannot be written.
    """
    refuse_others(out)
    boards = boards_of(record for source in sources for record in source.records)
    if not boards:
        raise BenchError("no trial of these folders has a score: there is nothing to publish")
    page = rendered_page("leaderboard", site_page(sources, boards, title), GENERATOR, STYLES)
    with as_asked(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            made = Path(scratch) / "new"
            made.mkdir()
            write_text(made / PAGE, page)
            write_text(made / "leaderboard.csv", _csv(boards))
            for source in sources:
                _copy_records(source, made / "records" / source.name)
            if out.exists():
                out.rename(Path(scratch) / "old")
            made.rename(out)
    return boards


def refuse_others(out: Path) -> None:
    """Raise UsageError where a folder holds something that is no leaderboard: it would be lost."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; give --out a folder")
    page = out / PAGE
    ours = page.is_file() and GENERATOR in page.read_text(encoding="utf-8", errors="replace")[:2000]
    if any(out.iterdir()) and not ours:
        raise UsageError(f"{out} holds other files than a leaderboard's; give --out a new folder")


def _copy_records(source: Source, folder: Path) -> None:
    folder.mkdir(parents=True)
    for record in source.records:
        name = f"{record.name}.json"
        if Path(name).name != name:
            raise BenchError(f"{source.name}: {name!r} is no name of a record's file")
        shutil.copyfile(source.folder / "records" / name, folder / f"{safe(record.key)}.json")


def _csv(boards: Sequence[Board]) -> str:
    rows = [
        {name: value(board, line) for name, value in COLUMNS.items()}
        for board in boards
        for line in board.lines
    ]
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
