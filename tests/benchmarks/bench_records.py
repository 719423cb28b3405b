"""Ten thousand records: how long they take to be read and to become a table, against their bare JSON.

``tox -e bench``; SAMPLER_BENCH_RECORDS sets their number. Reading and the table are set beside `json.loads`
of the same files, in turns: a machine that slows down slows both.
"""

import json
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.many import variants, write

from bench.records.store import Store
from bench.report.tables.scores import score_sheet
from bench.report.tables.table import tables_of

COUNT = int(os.environ.get("SAMPLER_BENCH_RECORDS", "10000"))
DIGITS = Path(__file__).parents[2] / "results" / "reference" / "digits"
pytestmark = pytest.mark.ratio
ROUNDS = 3

READING = 5.0
"""Reading may take so many times what its JSON does: every field is checked and every score made."""

TABLE = 3.0
"""A table may take so many times what its JSON does: every cell is compared with the best of its column."""

TWICE = 3.0
"""Twice the records may take so many times as long: twice is linear, four times would be quadratic."""


def seconds(work, *given):
    """The wall-clock time of a call."""
    began = time.perf_counter()
    work(*given)
    return time.perf_counter() - began


def shipped():
    """The samplers' records of the shipped network."""
    return [one for one in Store(DIGITS).read()[0] if one.kind == "samples" and one.status == "done"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("many")
    write(made / "records", variants(shipped(), COUNT))
    return made


def parsed(folder):
    return [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "records").glob("*.json")]


def sheets(records):
    return [score_sheet(table) for table in tables_of(records)]


def told(benchmark, work, against, most):
    """Time two things in turn, and hold their ratio below what it may be."""
    ratios = []

    def both():
        bare = seconds(against)
        ratios.append(seconds(work) / bare)

    both()
    ratios.clear()
    benchmark.pedantic(both, rounds=ROUNDS)
    found = statistics.median(ratios)
    benchmark.extra_info |= {"ratio": round(found, 3), "at most": most}
    print(f"{benchmark.name}: x{found:.2f} (at most {most})")
    assert found < most


def test_reading(benchmark, folder):
    benchmark.group = f"{COUNT:,} records"
    store = Store(folder)
    assert len(store.read()[0]) == COUNT
    told(benchmark, store.read, lambda: parsed(folder), READING)


def test_one_table(benchmark, folder):
    benchmark.group = f"{COUNT:,} records"
    records = Store(folder).read()[0]
    told(benchmark, lambda: sheets(records), lambda: parsed(folder), TABLE)


CHANGES = {
    "tables": lambda number: {"seed": number // 20},
    "grids": lambda number: {"spacing": f"edm:rho={number // 20}"},
}


@pytest.mark.parametrize("of", CHANGES)
def test_twice_as_many_take_twice_as_long(benchmark, of):
    """Sorted into tables, and each into the rows of its grids; of many tables and of many grids."""
    benchmark.group = f"{COUNT:,} records in many {of}"
    records = [
        replace(record, trial=replace(record.trial, **CHANGES[of](number)), key="")
        for number, record in enumerate(variants(shipped(), COUNT))
    ]

    def sorted_out(some):
        return [table.on_each_grid() for table in tables_of(some)]

    half = records[: COUNT // 2]
    told(benchmark, lambda: sorted_out(records), lambda: sorted_out(half), TWICE)
