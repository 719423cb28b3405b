"""The observer ``csv``: one row a trial in a file that any program reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from bench.errors import UsageError
from bench.files.atomic import write_text
from bench.hooks import hookimpl
from bench.plugins.observer import ObserverMaker
from bench.records.frame import frame
from bench.records.record import Record


class CsvTable:
    """A CSV file with the columns of `bench.load_results`; a trial told again replaces its row.

    Args:
        path: the file, to be made or added to.

    Raises:
        UsageError: if the file is there and is no such table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._rows = pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else None
        except (OSError, ValueError):  # pandas' errors of reading are ValueErrors
            self._rows = pd.DataFrame()
        if self._rows is not None and "key" not in self._rows:
            raise UsageError(f"{path} is no table of trials: give --log csv:FILE another file")

    def ended(self, record: Record) -> None:
        """Write the file with the trial's row."""
        row = frame([record]).astype(object)
        row = row.where(row.notna(), "").astype(str)
        before = self._rows
        if before is not None:
            row = pd.concat([before[before["key"] != record.key], row]).fillna("")
        self._rows = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, row.to_csv(index=False, lineterminator="\n"))

    def close(self) -> None:
        """Do nothing: every row is written."""


def csv_table(where: str, results: Path) -> CsvTable:
    """One row a trial in a CSV file: csv[:FILE] [RESULTS/trials.csv]."""
    return CsvTable(Path(where) if where else results / "trials.csv")


@hookimpl
def bench_observers() -> Mapping[str, ObserverMaker]:
    """Register it."""
    return {"csv": csv_table}
