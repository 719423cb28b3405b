"""Make a leaderboard of results folders and of packs: a static page that needs no network.

Every folder must pass ``verify``, and excerpts of its trials, drawn again, must be what its records hold.
Otherwise nothing is written, and what is wrong is named; exit status 1.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.commands.options import load_plugins
from bench.commands.verify import draw_again
from bench.errors import UsageError
from bench.files.atomic import as_asked, refuse_unwritable
from bench.records.pack import Manifest, is_pack, unpack
from bench.records.record import Record
from bench.records.store import Store, file_slug
from bench.report.site.sources import Source
from bench.report.site.write import PAGE, refuse_others, write_site
from bench.report.verify import results_below, verify
from bench.sweep.redo import Redone, choose_excerpts

REDO = 3
"""Excerpts of each folder that are drawn again where nobody says how many."""


@dataclass(frozen=True)
class Given:
    """A results folder as it was given.

    Attributes:
        folder: where its files are.
        name: what it is called, not yet told apart from others.
        trusted: whether it is published without being drawn again.
        packed: whether it came as a pack: then what it names may be anybody's.
    """

    folder: Path
    name: str
    trusted: bool = False
    packed: bool = False


def execute(options: argparse.Namespace) -> int:
    """Verify every folder, draw parts of them again, and write the page."""
    if options.redo is not None and options.redo < 1:
        raise UsageError(f"--redo must be at least 1, got {options.redo}; --no-redo draws nothing again")
    if not options.results and not options.trust:
        raise UsageError("give results folders or packs to publish")
    if options.no_redo and (options.redo is not None or options.seed is not None or options.trust):
        raise UsageError("--no-redo draws nothing again: leave out --redo, --seed and --trust")
    refuse_others(options.out)
    with as_asked(options.out):
        options.out.parent.mkdir(parents=True, exist_ok=True)
    refuse_unwritable(options.out)
    load_plugins(options.plugin)
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    with _opened([*options.results, *options.trust], options.trust) as given:
        names = _names(given)
        count = 0 if options.no_redo else options.redo or REDO
        sources = [
            _source(one, name, 0 if one.trusted else count, seed)
            for one, name in zip(given, names, strict=True)
        ]
        if _refused(sources):
            return 1
        boards = write_site(sources, options.out, options.title)
    trials = {(line.machine, line.record.key) for board in boards for line in board.lines}
    print(f"{options.out / PAGE}: {len(boards)} boards, {len(trials):,} trials of {len(sources)} folders")
    return 0


@contextmanager
def _opened(paths: Sequence[Path], trusted: Sequence[Path]) -> Iterator[list[Given]]:
    """Give the results folders that paths name: themselves, those below them, or what packs hold."""
    with tempfile.TemporaryDirectory(prefix="sampler-bench-") as scratch:
        found: dict[Path, Given] = {}
        for place, path in enumerate(paths):
            if not path.exists():
                raise UsageError(f"{path} does not exist; give results folders or packs of `submit`")
            if path.is_file() and not is_pack(path):
                raise UsageError(f"{path} is no results folder and no pack; make one with `submit`")
            for one in _unpacked(path, Path(scratch) / str(place)) if path.is_file() else _below(path):
                key = path.resolve() if path.is_file() else one.folder.resolve()
                found[key] = replace(one, trusted=path in trusted)
        yield list(found.values())


def _below(path: Path) -> list[Given]:
    return [Given(folder, folder.resolve().name) for folder in results_below(path)]


def _unpacked(path: Path, folder: Path) -> list[Given]:
    return [Given(folder, unpack(path, folder).name or path.stem, packed=True)]


def _names(given: Sequence[Given]) -> list[str]:
    """Return names that can be folders, no two of them alike."""
    found: list[str] = []
    for one in given:
        plain = file_slug(one.name).lstrip(".") or "results"
        tried = [plain, *(f"{plain}-{number}" for number in range(2, len(given) + 2))]
        found.append(next(name for name in tried if name not in found))
    return found


def _source(given: Given, name: str, count: int, seed: int) -> Source:
    """Verify a folder and draw parts of it again, with a line for each as it is done."""
    folder = given.folder
    checked = verify(folder)
    wrong = f"{len(checked.findings)} are not" if checked.findings else "are as their records make them"
    print(f"{name}: {checked.files} files of {checked.records} records, {wrong}", flush=True)
    records = Store(folder).read()[0]
    redone = None
    if count and not checked.findings:
        foreign = _foreign_code(records, count, seed) if given.packed else []
        redone = foreign or draw_again(folder, count, seed, told=name)
    return Source(name, folder, records, checked, Manifest.of(folder).digest, redone, seed)


def _foreign_code(records: Sequence[Record], count: int, seed: int) -> list[Redone]:
    """Return excerpts that are not drawn, because a record that came in a pack would have a file executed."""
    drawn = choose_excerpts(records, count, seed)
    if not any(".py:" in record.trial.model for record in records):
        return []
    reason = "its pack names a model in a Python file, which is not executed for a pack: give its folder"
    return [Redone(excerpt, error=reason) for excerpt in drawn]


def _refused(sources: Sequence[Source]) -> bool:
    """Name what is wrong with some sources, and return whether anything is."""
    for source in sources:
        for fault in source.faults:
            print(f"error: {source.name}: {fault}", file=sys.stderr)
    refused = [source.name for source in sources if source.faults]
    if not refused:
        return False
    undrawn = [s.name for s in sources if any(one.error for one in s.redone or ())]
    advice = (
        "; what cannot be drawn here may be published as it was told, and the page says so: --trust DIR"
        if undrawn
        else ""
    )
    print(f"error: nothing was published, because of {', '.join(refused)}{advice}", file=sys.stderr)
    return True
