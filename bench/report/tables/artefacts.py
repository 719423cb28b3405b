"""What a results folder holds besides its records, made from the records alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.files.atomic import write_text
from bench.published.presets import get_preset
from bench.records.record import Record
from bench.report.tables import sheets
from bench.report.tables.budgets import by_calls, differ_in_calls, latency_sheet
from bench.report.tables.comparison import compare_published
from bench.report.tables.findings import claims_sheet, find_claims
from bench.report.tables.scores import score_sheet
from bench.report.tables.table import Table, tables_of

TABLE_FORMS = {"txt": sheets.plain, "md": sheets.markdown, "csv": sheets.comma_separated}

SHEET_FORMS = {"md": sheets.markdown, "csv": sheets.comma_separated}

_BY_CALLS, _LATENCY, _CLAIMS = "-by-calls", "-latency", "-claims"

ENDINGS = ("", _BY_CALLS, _LATENCY, _CLAIMS)
"""What stands behind a table's slug in the names of its files."""


BESIDE = "beside-"
"""Begins the file name of a preset's table."""


def table_files(records: Sequence[Record], presets: Iterable[str] = ()) -> Mapping[str, str]:
    """Return the text of every file in ``tables/`` by name.

    Args:
        records: the records of the folder.
        presets: names of those whose published tables are wanted beside ours.
    """
    files: dict[str, str] = {}
    for table in tables_of(records):
        files |= score_files(table)
        files |= claim_files(table)
    for name in presets:
        sheet = compare_published(get_preset(name), records).sheet()
        files |= {f"{BESIDE}{name}.{suffix}": form(sheet) for suffix, form in SHEET_FORMS.items()}
    return files


def score_files(table: Table) -> Mapping[str, str]:
    """Return the text of a table of scores by name, by network calls too where its rows differ in them."""
    sheets_by_name = {table.slug: score_sheet(table)}
    if differ_in_calls(table):
        budgets = by_calls(table)
        sheets_by_name |= {
            f"{table.slug}{_BY_CALLS}": score_sheet(budgets),
            f"{table.slug}{_LATENCY}": latency_sheet(budgets),
        }
    return {
        f"{name}.{suffix}": form(sheet)
        for name, sheet in sheets_by_name.items()
        for suffix, form in TABLE_FORMS.items()
    }


def beside(preset: str, records: Sequence[Record], metric: str | None = None) -> list[sheets.Sheet]:
    """Return a preset's table, ours beside the published; by shape as well where no cell can be compared."""
    table = compare_published(get_preset(preset), records)
    return [table.sheet()] if table.comparable else [table.sheet(), *claim_sheets(records, metric)]


def claim_sheets(records: Sequence[Record], metric: str | None = None) -> list[sheets.Sheet]:
    """Return the claims by shape of every table."""
    return [claims_sheet(table, find_claims(table)) for table in tables_of(records, metric)]


def claim_files(table: Table) -> Mapping[str, str]:
    """Return the text of a table's claims by name, none where no claim can be tested on it."""
    findings = find_claims(table)
    if all(finding.verdict == "not tested" for finding in findings):
        return {}
    sheet = claims_sheet(table, findings)
    return {f"{table.slug}{_CLAIMS}.{suffix}": form(sheet) for suffix, form in SHEET_FORMS.items()}


def write_tables(folder: Path, records: Sequence[Record], presets: Iterable[str] = ()) -> list[Path]:
    """Write every table of some records into ``folder/tables`` and return the paths."""
    return write_files(folder, table_files(records, presets))


def write_files(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Write texts by name into ``folder/tables`` and return the paths."""
    paths = []
    for name, text in files.items():
        path = folder / "tables" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        paths.append(path)
    return paths
