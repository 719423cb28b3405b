"""Equal weights are one model, whatever path they lie at."""

from dataclasses import replace
from pathlib import Path

from bench.records.store import Store
from bench.report.tables.table import tables_of

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


def moved(record, name):
    return replace(record, trial=replace(record.trial, model=name))


def records(name):
    return Store(REFERENCE / name).read()[0]


def test_the_same_weights_under_another_path_are_one_table():
    kept = records("digits")
    half = [moved(r, "copies/digits.pt") if place % 2 else r for place, r in enumerate(kept)]
    (whole,), (joined,) = tables_of(kept), tables_of(half)
    assert joined.cells.keys() == whole.cells.keys()
    assert joined.floor == whole.floor is not None
    assert joined.title.split(":")[0] in ("digits", "copies/digits.pt")


def test_other_weights_under_one_name_are_two_tables():
    kept = records("digits")
    other = [replace(r, model=replace(r.model, weights="0" * 16)) for r in kept]
    assert len(tables_of([*kept, *other])) == 2


def test_options_make_another_model_of_the_same_weights():
    titles = {table.title.partition(": ")[0] for table in tables_of(records("digits-conditional"))}
    assert len(titles) > 1
