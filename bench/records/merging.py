"""Results of several machines in one folder: what agrees is copied, what does not is named."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.files.atomic import write_atomically
from bench.records.record import Record
from bench.records.store import Store, Unreadable

ASIDE = ("cost", "environment", "images")
"""What may differ between two records of the same scores: times, machines, what older versions lack."""


@dataclass(frozen=True)
class Conflict:
    """Two records of one trial, or two tables of one model's training, that say different things.

    Attributes:
        kept: the file that stays.
        other: the file that was left where it is.
        fields: in what they differ.
    """

    kept: Path
    other: Path
    fields: Sequence[str]

    def __str__(self) -> str:
        return f"{self.other} and {self.kept} differ in {', '.join(self.fields)}; the latter is kept"


@dataclass
class Merged:
    """What a merge did.

    Attributes:
        copied: records that are new.
        same: records that were there with the same numbers.
        replaced: failures that another machine's success took the place of.
        conflicts: records, or tables of a model's training, that differ.
        unreadable: record files that are damaged.
    """

    copied: list[Path] = field(default_factory=list)
    same: list[Path] = field(default_factory=list)
    replaced: list[Path] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)


def merge(sources: Iterable[Path], target: Path) -> Merged:
    """Copy the records of several results folders, with their pictures and trainings, into one.

    A record that is there already stays: nothing is overwritten but a failure, by another machine's success.

    Raises:
        BenchError: if the target cannot be written to.
    """
    store, done = Store(target), Merged()
    store.prepare()
    known = {record.key: record for record in store.read()[0]}
    for source in sources:
        records, unreadable = Store(source).read()
        done.unreadable += unreadable
        for record in records:
            _place(record, source, store, known, done)
        for table in sorted(Store(source).training.glob("*.csv")):
            _place_training(table, store, done)
    return done


def _place_training(table: Path, store: Store, done: Merged) -> None:
    kept = store.training / table.name
    if not kept.is_file():
        try:
            store.keep_training(table.stem, table)
        except OSError as error:
            raise BenchError(f"cannot copy {table} to {store.training}: {error.strerror}") from error
    elif kept.read_bytes() != table.read_bytes():
        done.conflicts.append(Conflict(kept, table, ["rows"]))


def _place(record: Record, source: Path, store: Store, known: dict[str, Record], done: Merged) -> None:
    path = Store(source).records / f"{record.name}.json"
    there = known.get(record.key)
    if there is None or (there.status == "failed" and record.status != "failed"):
        if there is not None:
            done.replaced.append(_copy(path, store, there))
        else:
            done.copied.append(_copy(path, store))
        known[record.key] = record
        return
    kept = store.records / f"{there.name}.json"
    fields = [] if record.status == "failed" else differing(there, record)
    if fields:
        done.conflicts.append(Conflict(kept, path, fields))
    else:
        done.same.append(kept)


def differing(a: Record, b: Record) -> list[str]:
    """Return the names of what two records differ in, times and machines aside."""
    left, right = _flat(a.to_json()), _flat(b.to_json())
    return sorted(name for name in left | right if left.get(name) != right.get(name))


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(fields))
    found: dict[str, Any] = {}
    for name, value in plain.items():
        if name in ASIDE:
            continue
        if isinstance(value, dict):
            found |= {f"{name} {key}": part for key, part in value.items()}
        else:
            found[name] = value
    return found


def _copy(path: Path, store: Store, instead: Record | None = None) -> Path:
    """Copy a record with the files that bear its name, the record last."""
    try:
        files = sorted(path.parent.glob(f"{path.stem}.*"), key=lambda file: file == path)
        for file in files:
            write_atomically(store.records / file.name, file.read_bytes())
        if instead is not None and instead.name != path.stem:
            for old in store.records.glob(f"{instead.name}.*"):
                old.unlink()
    except OSError as error:
        raise BenchError(f"cannot copy {path} to {store.records}: {error.strerror}") from error
    return store.records / path.name
