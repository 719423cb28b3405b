"""Write the records of a results folder as one table: CSV, Parquet, JSON or LaTeX, by the file's ending."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from bench.commands.options import escaped, is_shown, read_records, refuse_unknown_metric, warn
from bench.errors import UsageError
from bench.files.atomic import as_asked, encoded, write_atomically
from bench.records.frame import frame
from bench.report.tables import sheets
from bench.report.tables.scores import score_sheet
from bench.report.tables.table import tables_of


def execute(options: argparse.Namespace) -> int:
    """Write one row a record, or LaTeX as the tables have it."""
    form = options.format or _format_of(options.out)
    if form == "parquet" and options.out is None:
        raise UsageError("Parquet is no text; give --out FILE.parquet")
    records, whole = read_records(options.results, options.model)
    refuse_unknown_metric(records, options.metric)
    if form == "latex":
        content = encoded(
            "\n".join(sheets.latex(score_sheet(table)) for table in tables_of(records, options.metric))
        )
    else:
        content = FORMATS[form](frame(records))
    if options.out is None:
        text = content.decode()
        if form == "json":
            text = escaped(text)
        elif not is_shown(text):
            warn(
                f"standard output is {sys.stdout.encoding}, which lacks some letters of the records: another"
                " stands in the place of each; give --out FILE"
            )
        sys.stdout.write(text)
    else:
        with as_asked(options.out):
            write_atomically(options.out, content)
        print(f"{len(records)} records in {options.out}")
    return 0 if whole else 1


def _format_of(out: Path | None) -> str:
    if out is None:
        return "csv"
    known = {".csv": "csv", ".parquet": "parquet", ".json": "json", ".tex": "latex"}
    if out.suffix not in known:
        raise UsageError(f"{out} has no known ending; use {', '.join(known)} or give --format")
    return known[out.suffix]


def _csv(rows: pd.DataFrame) -> bytes:
    return encoded(rows.to_csv(index=False, lineterminator="\n"))


def _json(rows: pd.DataFrame) -> bytes:
    text = rows.to_json(orient="records", indent=1, force_ascii=False, double_precision=15)
    return f"{text}\n".encode()


def _parquet(rows: pd.DataFrame) -> bytes:
    if not any(importlib.util.find_spec(name) for name in ("pyarrow", "fastparquet")):
        raise UsageError("Parquet needs `pip install pyarrow`; CSV and JSON need nothing more")
    return rows.to_parquet(None, index=False)


FORMATS: Mapping[str, Callable[[pd.DataFrame], bytes]] = {
    "csv": _csv,
    "parquet": _parquet,
    "json": _json,
    "latex": lambda rows: b"",  # it is made of tables, not of rows
}
