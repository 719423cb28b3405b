"""Make every table, plot and report of results folders again from their records, and compare.

Tables and reports must be equal to the bit, plots to the eye. With --redo K excerpts of K trials, chosen at
random, are drawn again and compared with what their records hold. Exit status 1 with what differs named.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.commands.options import load_plugins, print_json
from bench.errors import UsageError
from bench.records.store import Store
from bench.report.verify import FOREIGN, Checked, results_below, verify
from bench.sweep.redo import Redone, choose_excerpts, redo


def execute(options: argparse.Namespace) -> int:
    """Verify, and name what differs."""
    if options.redo is not None and options.redo < 1:
        raise UsageError(f"--redo must be at least 1, got {options.redo}")
    if options.redo is None and (options.seed is not None or options.whole):
        raise UsageError("--seed and --whole say what --redo K draws again: give --redo too")
    load_plugins(options.plugin)
    folders = [found for folder in options.folders for found in results_below(folder)]
    checked = [verify(folder) for folder in folders]
    if not options.json:
        for one in checked:
            told = "are as their records make them" if not one.findings else f"{len(one.findings)} are not"
            print(f"{one.folder}: {one.files} files of {one.records} records, {told}")
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    redone = [_redo(folder, seed, options) for folder in folders if options.redo]
    if options.json:
        shown = [_fields(one) for one in checked]
        for fields, again in zip(shown, redone, strict=False):
            fields["redone"] = {"seed": seed, "excerpts": [_redone_fields(one) for one in again]}
        print_json(shown)
    for one in checked:
        for finding in one.findings:
            print(f"error: {finding}", file=sys.stderr)
        if cures := _cures(one):
            print(cures, file=sys.stderr)
    wrong = [one for again in redone for one in again if not one.agrees]
    for failure in wrong:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if wrong or any(one.findings for one in checked) else 0


def _cures(checked: Checked) -> str:
    """Return how what is older than the records is made again; empty if nothing is."""
    verbs = {"plots": "plot", "report.html": "report"}
    found = [(one.path.relative_to(checked.folder).parts[0], one.reason) for one in checked.findings]
    inside = {place for place, _ in found}
    told = [f"`sampler-bench {verbs[name]} --results {checked.folder}`" for name in verbs if name in inside]
    if any(place == "tables" and reason != FOREIGN for place, reason in found):
        told.append("for tables the command of the run, which draws nothing that is there")
    return f"to make them again: {' and '.join(told)}" if told else ""


def _redo(folder: Path, seed: int, options: argparse.Namespace) -> Sequence[Redone]:
    return draw_again(folder, options.redo, seed, whole=options.whole, quiet=options.json)


def draw_again(
    folder: Path, count: int, seed: int, *, whole: bool = False, quiet: bool = False, told: str = ""
) -> Sequence[Redone]:
    """Draw excerpts of a folder's trials again, with a line for each as it is done.

    Args:
        folder: the results folder.
        count: number of excerpts.
        seed: chooses them.
        whole: draw whole trials, however long they took.
        quiet: print nothing.
        told: what the folder is called; its path where empty.
    """
    store = Store(folder)
    excerpts = choose_excerpts(store.read()[0], count, seed, whole=whole)
    if not quiet:
        what = (
            f"{len(excerpts)} drawn again, chosen with --seed {seed}"
            if excerpts
            else "no trial can be drawn again"
        )
        print(f"{told or folder}: {what}", flush=True)
    found = []
    for one in redo(store, excerpts):
        found.append(one)
        if not quiet:
            print(f"  {one}", flush=True)
    return found


def _fields(checked: Checked) -> dict[str, object]:
    return {
        "folder": str(checked.folder),
        "records": checked.records,
        "files": checked.files,
        "findings": [{"path": str(f.path), "reason": f.reason} for f in checked.findings],
    }


def _redone_fields(redone: Redone) -> dict[str, object]:
    blocks = redone.excerpt.blocks
    return {
        "key": redone.excerpt.record.key,
        "trial": redone.excerpt.record.title,
        "first": blocks[0].start,
        "count": blocks[-1].stop - blocks[0].start,
        "agrees": redone.agrees,
        "told": redone.told,
    }
