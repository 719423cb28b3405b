"""A results folder that goes into the leaderboard: read, verified, and drawn again in part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.records.record import Record
from bench.report.verify import Checked
from bench.sweep.redo import Redone


@dataclass(frozen=True)
class Source:
    """One results folder, or what a pack held.

    Attributes:
        name: stands for it in the site; no other source has it.
        folder: where its files are.
        records: all its records.
        checked: what making its tables, plots and report again found.
        digest: SHA-256 of its list of files, as its pack tells it.
        redone: what came of drawing some of its trials again; None where nobody did.
        seed: chose what was drawn again.
    """

    name: str
    folder: Path
    records: Sequence[Record]
    checked: Checked
    digest: str
    redone: Sequence[Redone] | None = None
    seed: int | None = None

    @property
    def seen(self) -> bool:
        """Whether a part of it was drawn again: not only told."""
        return bool(self.redone)

    @property
    def faults(self) -> list[str]:
        """Why it cannot be published, a sentence each."""
        found = [str(finding) for finding in self.checked.findings]
        return found + [str(one) for one in self.redone or () if not one.agrees]
