"""Whether winners survive, on records made up so that the answer is known."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.reports import record, score, table

from bench.commands.main import main
from bench.records.store import Store
from bench.report.page.html import report
from bench.report.plots.ranks import rank_plot
from bench.report.tables.budgets import arranged
from bench.report.tables.stability import conditions, rank_sheet, ranked, stability_sheets, survivals
from bench.report.tables.table import tables_of

ROWS = ("ddim:eta=0", "ddim:eta=0.5", "ddim:eta=1")


def made(values, se=0.01, **fields):
    """Records of one column, with independent errors."""
    return [
        record(spec, 10, value, se=se, seed=place, **fields)
        for place, (spec, value) in enumerate(zip(ROWS, values, strict=True))
    ]


def with_second(records, values, se=0.01, name="kid"):
    """The records with another score."""
    return [
        replace(
            one,
            trial=replace(one.trial, metrics=("fid", name)),
            scores={**one.scores, name: score(value, se, name, seed=10 + place)},
        )
        for place, (one, value) in enumerate(zip(records, values, strict=True))
    ]


def by_condition(found):
    return {one.condition: one for one in found}


def test_a_clear_winner_survives_everything():
    records = with_second(made((1.0, 2.0, 3.0)), (0.1, 0.2, 0.3))
    shown = table(records)
    found = by_condition(survivals(shown, conditions(shown, records)))
    assert list(found) == ["drawn again", "half of the samples", "a quarter of the samples", "kid"]
    for one in found.values():
        assert (one.winner, one.there, one.chance, one.verdict) == ("ddim eta=0", "ddim eta=0", 1, "survives")
        assert (one.agreement.low, one.agreement.high) == (1, 1)


def test_a_winner_that_another_score_turns_over():
    records = with_second(made((1.0, 2.0, 3.0)), (0.3, 0.2, 0.1))
    shown = table(records)
    turned = by_condition(survivals(shown, conditions(shown, records)))["kid"]
    assert (turned.winner, turned.there, turned.chance) == ("ddim eta=0", "ddim eta=1", 0)
    assert (turned.verdict, turned.agreement.tau, turned.agreement.high) == ("another wins", -1, -1)


def test_a_toss_of_a_coin_is_open():
    found = by_condition(survivals(table(made((1.0, 1.001, 9.0), se=0.5))))
    once, quarter = found["drawn again"], found["a quarter of the samples"]
    assert once.verdict == quarter.verdict == "open"
    assert 0.3 < once.chance < 0.7
    assert once.agreement.low < 0.5


def test_a_ranking_by_plain_values_is_told_where_the_bias_decides():
    plain = [
        record(spec, 10, value, debiased=right)
        for spec, value, right in zip(ROWS, (1.0, 1.5, 2.0), (0.9, 0.5, 1.9), strict=True)
    ]
    found = by_condition(survivals(table(plain)))["not bias-corrected"]
    assert (found.winner, found.there, found.verdict) == ("ddim eta=0.5", "ddim eta=0", "another wins")


def test_other_tables_are_told_by_what_differs():
    first = made((1.0, 2.0, 3.0))
    others = [
        *made((1.0, 2.0, 3.0), model="ema_celeba"),
        *made((3.0, 2.0, 1.0), drawn=(("seed", 1),)),
        *made((1.0, 2.0, 3.0), n=5000),
        *made((1.0, 2.0, 3.0), precision="float16"),
    ]
    shown = table(first)
    found = conditions(shown, [*first, *others])
    assert sorted(name for name, _ in found) == ["model ema_celeba", "n=5,000", "precision float16", "seed 1"]
    told = by_condition(survivals(shown, found))
    assert told["seed 1"].verdict == "another wins"
    assert told["model ema_celeba"].verdict == "survives"


def test_only_rows_and_columns_that_both_have_are_compared():
    first = made((1.0, 2.0, 3.0))
    fewer = [record(spec, 10, value, n=5000) for spec, value in ((ROWS[1], 1.0), (ROWS[2], 2.0))]
    other = [record(ROWS[0], 20, 1.0, n=7000), record(ROWS[1], 20, 2.0, n=7000)]
    shown = table(first)
    told = by_condition(survivals(shown, conditions(shown, [*first, *fewer, *other])))
    assert told["n=5,000"].rows == 2
    assert told["n=5,000"].winner == "ddim eta=0.5"
    assert "n=7,000" not in told


def test_one_row_or_no_groups_leave_nothing_to_rank():
    alone = table([record(ROWS[0], 10, 1.0)])
    assert rank_sheet(alone) is None
    assert stability_sheets([record(ROWS[0], 10, 1.0)], alone) == []
    assert rank_plot(alone) is None
    bare = [
        replace(one, scores={"fid": replace(one.scores["fid"], leave_one_out=())})
        for one in made((1.0, 2.0, 3.0))
    ]
    assert rank_sheet(table(bare)) is None


@pytest.fixture
def folder(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    for one in with_second(made((1.0, 2.0, 3.0)), (0.3, 0.2, 0.1)):
        store.write(one)
    return tmp_path


def test_the_command_and_the_report_show_both_sheets(folder, capsys):
    assert main(["table", "--stability", "--results", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "How sure the ranks are: ema_cifar10: fid" in text
    assert "100% (1)" in text
    assert "Does the winner survive?" in text and "another wins" in text
    assert main(["table", "--stability", "--json", "--results", str(folder)]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert {line.get("best_share") for line in lines} == {0.0, 1.0, None}
    assert [line["condition"] for line in lines if "tau" in line][-1] == "kid"
    store = Store(folder)
    page = report(store, store.read()[0], [])
    assert "<h3>Does the winner survive?</h3>" in page
    assert "another wins" in page


def test_nothing_to_rank_is_a_sentence(tmp_path, capsys):
    store = Store(tmp_path)
    store.prepare()
    store.write(record(ROWS[0], 10, 1.0))
    assert main(["table", "--stability", "--results", str(tmp_path)]) == 2
    assert "no column has two scores" in capsys.readouterr().err


def test_what_the_document_says_of_the_digits():
    root = Path(__file__).parents[2]
    text = (root / "docs" / "results.md").read_text(encoding="utf-8")
    told = re.search(
        r"SA-Solver is the best at 10 calls in (\d+)% of the draws, UniPC in (\d+)%;.*SA-Solver in (\d+)%",
        text,
    )
    records = Store(root / "results" / "reference" / "digits").read()[0]
    shown = arranged(tables_of(records)[0])
    ranks = ranked(shown, 10).ranks
    assert round(100 * ranks["sa-solver predictor=2"].best) == int(told[1])
    assert round(100 * ranks["unipc order=3"].best) == int(told[2])
    pixels = by_condition(survivals(replace(shown, columns=[10]), conditions(shown, records)))["fd_pixels"]
    assert (pixels.there, round(100 * pixels.chance)) == ("deis order=3", int(told[3]))
