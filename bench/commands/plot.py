"""Draw the plots and the picture grid of a results folder."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.commands.common import add_results, read_records
from bench.report.groups import Group, group_records
from bench.store import Store


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_results(parser)
    parser.add_argument("--model", action="append", default=[], help="only this model; repeatable")
    parser.add_argument("--metric", help="score to show [each record's first]")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to [RESULTS/plots]")
    parser.add_argument("--format", choices=("png", "svg", "pdf"), default="png", help="of the plots [png]")


def execute(options: argparse.Namespace) -> int:
    """Draw everything and print the paths."""
    records, whole = read_records(options.results, options.model)
    groups = group_records(records, options.metric)
    for path in draw(groups, Store(options.results), options.out, options.format):
        print(path)
    return 0 if whole else 1


def draw(
    groups: Iterable[Group], store: Store, out: Path | None = None, suffix: str = "png"
) -> Iterator[Path]:
    """Draw the plots and pictures of some tables and yield the paths."""
    from bench.report import pictures, plots  # matplotlib takes a second that other verbs need not wait

    folder = out or store.folder / "plots"
    for group in groups:
        if any(cell.score is not None for cell in group.cells.values()):
            yield plots.save(plots.score_against_steps(group), folder / f"{group.slug}-steps.{suffix}")
            yield plots.save(plots.score_against_time(group), folder / f"{group.slug}-time.{suffix}")
        grid = pictures.picture_grid(group, store)
        if grid is not None:
            yield pictures.save_picture(grid, folder / f"{group.slug}-pictures.png")
