"""Time grids as rows, and network calls as columns."""

from dataclasses import replace

import pytest
from support.reports import record, table

from bench.commands.compare import columns_of
from bench.commands.options import parse_spacings
from bench.published.claims import CLAIMS
from bench.records.store import Store
from bench.records.trial import Cost
from bench.report.tables.artefacts import score_files
from bench.report.tables.budgets import arranged, by_calls, differ_in_calls, latency_sheet
from bench.report.tables.findings import find_claims
from bench.report.tables.scores import score_sheet
from bench.report.tables.summary import best_of_columns, sentences
from bench.report.tables.table import tables_of

HEUN = "edm churn=0"
"""The label of the rule where nobody named the alias."""


def spent(sampler, steps, calls, value, **fields):
    """A trial of so many network calls, each of 2 ms in the network and 1 ms beside it for all images."""
    made = record(sampler, steps, value, **fields)
    return replace(made, cost=Cost(calls, 0.003 * calls, 0.002 * calls))


@pytest.fixture
def mixed():
    heun = [spent("heun", s, 2 * s - 1, value, seed=s) for s, value in ((5, 2.0), (8, 1.4), (10, 1.2))]
    ddim = [spent("ddim", s, s, value, seed=20 + s) for s, value in ((5, 6.0), (10, 4.0), (20, 2.0))]
    return table([*ddim, *heun])


def test_time_grids_are_rows_of_one_table():
    made = table([record("ddim", 10, 4.0, spacing=one) for one in ("edm:rho=7", "logsnr", "1,2,3,4")])
    assert made.rows == ["ddim eta=0 on 1..4 (4 times)", "ddim eta=0 on edm:rho=7", "ddim eta=0 on logsnr"]
    assert "spacing 1..4 (4 times) and edm:rho=7 and logsnr" in made.title
    assert set(score_sheet(made).frame.spacing) == {"edm:rho=7", "logsnr", "1,2,3,4"}


def test_one_time_grid_is_told_in_the_title_alone():
    made = table([record("ddim", 10, 4.0, spacing="edm")])
    assert made.rows == ["ddim eta=0"]
    assert made.slug.endswith("-edm")


def test_all_time_steps_stand_in_the_row_of_every_grid():
    made = table(
        [record("ddim", s, 4.0, spacing=one) for s, one in ((10, "quadratic"), (10, "edm"), (1000, "all"))]
    )
    assert [made.cells[row, 1000].record.trial.spacing for row in made.rows] == ["all", "all"]
    assert len(made.rows) == 2


def test_claims_are_tested_on_every_time_grid():
    etas = ("ddim:eta=0", "ddim:eta=0.2", "ddim:eta=0.5", "ddim:eta=1")
    values = {"uniform": (1.0, 2.0, 3.0, 4.0), "edm": (4.0, 3.0, 2.0, 1.0)}
    made = table(
        [
            record(row, 10, value, spacing=grid, seed=k)
            for grid, column in values.items()
            for k, (row, value) in enumerate(zip(etas, column, strict=True))
        ]
    )
    claim = [one for one in CLAIMS if one.name == "eta-order-10"]
    found = {one.spacing: one.verdict for one in find_claims(made, claim)}
    assert found == {"uniform": "holds", "edm": "fails"}
    assert any("(on edm)" in one.text for one in find_claims(made, claim))


def test_a_budget_holds_the_most_calls_that_it_allows(mixed):
    made = by_calls(mixed)
    spending = {place: cell.record.cost.calls for place, cell in made.cells.items()}
    assert spending == {
        ("ddim eta=0", 5): 5, ("ddim eta=0", 10): 10, ("ddim eta=0", 20): 20,
        (HEUN, 10): 9, (HEUN, 15): 15, (HEUN, 20): 19,
    }  # fmt: skip
    assert made.head(10) == "10 calls"
    sheet = score_sheet(made)
    assert sheet.columns == ["sampler", "5 calls", "10 calls", "15 calls", "20 calls"]
    assert "2.0000 ± 0.0100 (9)" in sheet.rows[1]
    assert list(sheet.frame.column) == [5, 10, 20, 10, 15, 20]


def test_the_best_of_a_budget_is_not_the_best_of_a_number_of_steps(mixed):
    assert {one.head: one.row for one in best_of_columns(mixed)}["S=5"] == HEUN
    assert {one.head: one.row for one in best_of_columns(by_calls(mixed))} == {
        "5 calls": "ddim eta=0",
        "10 calls": HEUN,
        "15 calls": HEUN,
        "20 calls": HEUN,
    }
    assert not any(said.startswith("With") for said in sentences(mixed, []))  # one row alone spends 5 calls


def test_rows_of_equal_cost_are_headed_by_steps(mixed):
    assert differ_in_calls(mixed)
    assert arranged(mixed).by == "calls"
    assert arranged(mixed, "steps").by == "steps"
    # uniform takes 31 steps for S = 30: every row does, and none differs
    thirty = [record(row, 30, 4.0) for row in ("ddim", "ddim:eta=1")]
    alike = table([replace(one, grid=replace(one.grid, steps=31), cost=Cost(31)) for one in thirty])
    assert arranged(alike).by == "steps"
    assert [*by_calls(alike).columns] == [30]
    assert [*score_files(alike)] == [f"{alike.slug}.{form}" for form in ("txt", "md", "csv")]


def test_rules_of_two_calls_alone_have_budgets_of_their_own():
    made = by_calls(table([spent("heun", s, 2 * s - 1, 2.0, seed=s) for s in (3, 4)]))
    assert made.columns == [5, 7]


def test_a_failed_trial_keeps_its_place(mixed):
    failed = record("ddim:eta=1", 10, status="failed", message="it broke")
    made = by_calls(table([*(cell.record for cell in mixed.cells.values()), failed]))
    assert ["ddim eta=1", "", "failed", "", ""] in score_sheet(made).rows


def test_latency_is_told_in_network_calls(mixed):
    sheet = latency_sheet(by_calls(mixed))
    # Half of the network's own time comes beside it: 15 calls take as long as 10.
    assert sheet.rows[0] == ["ddim eta=0", "7.5", "15.0", "", "30.0"]
    assert sheet.rows[1] == [HEUN, "", "13.5", "22.5", "28.5"]
    assert set(sheet.frame.columns) == {"sampler", "calls", "calls_spent", "latency_in_calls"}
    assert sheet.note == "in network calls of each cell's own trial, 4e-05 ms an image"


def test_a_trial_drawn_on_a_busier_machine_takes_as_many_calls(mixed):
    """1,000 calls never take less time than 1,000 calls, whatever the other cells' took."""
    calm = spent("ddim:eta=1", 20, 20, 3.0)
    busy = replace(calm.cost, sampling_seconds=10 * 0.06, model_seconds=10 * 0.04)
    records = [cell.record for cell in mixed.cells.values()]
    alone, among = (
        latency_sheet(by_calls(table([*records, replace(calm, cost=cost)]))) for cost in (calm.cost, busy)
    )
    assert alone.rows == among.rows
    assert alone.rows[1] == ["ddim eta=1", "", "", "", "30.0"]
    assert among.note.endswith(" ms an image") and " to " in among.note


def test_compare_ranks_what_a_budget_buys(mixed, tmp_path):
    records = [cell.record for cell in mixed.cells.values()]
    (found,) = columns_of(records, None, 12, None, Store(tmp_path))
    spending = [(row["trial"], row["calls"]) for row in found.rows]
    assert spending == [(f"{HEUN} S=5", 9), ("ddim eta=0 S=10", 10)]
    assert [row["verdict"] for row in found.rows] == ["best", "worse"]
    with pytest.raises(ValueError, match="at most 3 network calls"):
        columns_of(records, None, 3, None, Store(tmp_path))


def test_pairs_of_grids_are_told_apart_in_a_column(tmp_path):
    records = [record("ddim", 10, v, spacing=s) for v, s in ((1.0, "edm"), (2.0, "logsnr"))]
    (found,) = columns_of(records, 10, None, None, Store(tmp_path))
    assert [row["trial"] for row in found.rows] == ["ddim eta=0 on edm S=10", "ddim eta=0 on logsnr S=10"]


def test_models_still_make_tables_of_their_own():
    assert len(tables_of([record("ddim", 10, 4.0, model=m, weights=m) for m in ("a", "b")])) == 2


@pytest.mark.parametrize(
    ("text", "grids"),
    [
        ("logsnr,edm,time", ("logsnr", "edm", "time")),
        ("edm:rho=5,sigma_max=40,logsnr", ("edm:rho=5,sigma_max=40", "logsnr")),
        ("999,500,0", ("999,500,0",)),
        ("sigma:80,10,1,edm", ("sigma:80,10,1", "edm")),
        ("edm,edm", ("edm",)),
    ],
)
def test_several_time_grids_are_given_with_commas(text, grids):
    assert parse_spacings(text) == grids
