"""Which records share a table: those whose scores can be compared, by what they were measured with."""

from dataclasses import replace

import pytest
from support.reports import record, table

from bench.commands.main import main
from bench.records.record import FLOOR
from bench.records.store import Store
from bench.report.page.page import page
from bench.report.plots.heatmap import heat_map
from bench.report.plots.score import pareto_front
from bench.report.tables import sheets
from bench.report.tables.artefacts import table_files
from bench.report.tables.findings import find_claims
from bench.report.tables.scores import score_sheet
from bench.report.tables.summary import sentences
from bench.report.tables.table import direction, tables_of

ETA0, ETA1 = "ddim:eta=0", "ddim:eta=1"


def measured(text, sampler=ETA0, value=1.0, **fields):
    """A record whose provenance says what its score does."""
    provenance = {"reference of fid": text, "feature space of fid": "space"}
    return record(sampler, 10, value, provenance=provenance, reference=text, **fields)


@pytest.mark.parametrize(
    ("field", "fact"),
    [
        ("reference", "reference hash"),
        ("space", "feature space"),
        ("quantisation", "quantisation"),
        ("weights", "weights"),
    ],
)
def test_scores_that_were_measured_otherwise_stand_in_another_table(field, fact):
    first, second = (record(ETA0, 10, 1.0, **{field: "one"}), record(ETA1, 10, 2.0, **{field: "other"}))
    tables = tables_of([first, second])
    assert [(made.rows, made.leaders(10)) for made in tables] == [
        (["ddim eta=0"], ("ddim eta=0", ())),
        (["ddim eta=1"], ("ddim eta=1", ())),
    ]
    assert [made.title.rpartition(", ")[2] for made in tables] == [f"{fact} one", f"{fact} other"]
    assert len({made.slug for made in tables}) == 2
    assert all(made.slug.startswith("ema_cifar10-fid-quadratic-") for made in tables)
    assert len(table_files([first, second])) == 2 * len(table_files([first]))
    assert [made.slug for made in tables_of([second, first])] == [made.slug for made in tables]


def test_one_measure_needs_no_mark():
    made = table([record(ETA0, 10), record(ETA1, 10)])
    assert made.slug == "ema_cifar10-fid-quadratic"
    assert made.title == "ema_cifar10: fid, n=50,000, spacing quadratic, seed 0, float32, cpu"


def test_files_of_one_name_make_two_tables_that_can_be_told_apart():
    paths = ("here/images.npz", "there/images.npz")
    tables = tables_of([record(ETA0, 10, drawn={"reference": path}) for path in paths])
    assert [made.title.rpartition(", ")[2] for made in tables] == [f"reference file {path}" for path in paths]
    assert len({made.slug for made in tables}) == 2


def test_a_failure_stands_where_its_score_would_have_stood():
    before, now = measured("before"), measured("now")
    failed = measured("now", ETA1, status="failed", message="it broke")
    skipped = measured("before", ETA1, status="skipped", message="no variance")
    tables = {made.measure.reference: made for made in tables_of([failed, before, skipped, now])}
    assert set(tables) == {"before", "now"}
    assert {name: made.cells["ddim eta=1", 10].record for name, made in tables.items()} == {
        "before": skipped,
        "now": failed,
    }


def test_failures_of_which_nothing_was_scored_have_their_own_table():
    before = measured("before")
    failed = [measured("now", spec, status="failed", message="it broke") for spec in (ETA0, ETA1)]
    old, new = tables_of([before, *failed])
    assert (old.rows, new.rows) == (["ddim eta=0"], ["ddim eta=0", "ddim eta=1"])
    assert new.title.endswith("reference hash now")
    assert new.leaders(10) == (None, ())


def test_a_failure_with_all_the_time_steps_joins_the_rest():
    failed = measured("now", status="failed", message="it broke", spacing="all")
    failed = replace(failed, trial=replace(failed.trial, steps=1000), key="")
    made = table([measured("now"), failed])
    assert made.columns == [10, 1000]


def test_real_images_stand_where_they_were_measured_alike():
    floors = [measured(text, FLOOR, value) for text, value in (("before", 0.3), ("now", 0.4))]
    tables = tables_of([measured("before"), measured("now", weights="others"), *floors])
    assert {made.measure.reference: made.floor.value for made in tables} == {"before": 0.3, "now": 0.4}
    assert table([measured("now"), floors[0]]).floor is None


def test_no_row_leads_where_scores_cannot_be_compared():
    first, second = record(ETA0, 10, 1.0), record(ETA1, 10, 2.0)
    fewer = replace(second.scores["fid"], leave_one_out=second.scores["fid"].leave_one_out[:10])
    made = table([first, replace(second, scores={"fid": fewer})])
    assert made.leaders(10) == (None, ())
    assert any("The best fid is 1.000" in sentence for sentence in sentences(made, []))


def test_scores_without_jackknife_groups_have_a_best_and_no_ties():
    records = [record(ETA0, 10, 2.0), record(ETA1, 10, 1.0)]
    bare = [replace(one, scores={"fid": replace(one.scores["fid"], leave_one_out=())}) for one in records]
    assert table(bare).leaders(10) == ("ddim eta=1", ())


def test_the_best_of_all_stands_in_no_column_without_a_verdict():
    flags = {"flags": ("rank-deficient",)}
    good = record(ETA0, 10, 1.0, debiased=-1.0, **flags)
    bad = record(ETA1, 10, 2.0, debiased=-9.0, **flags)
    sound = record(ETA1, 20, 3.0, debiased=3.0)
    told = sentences(table([good, bad, sound]), [])
    assert told[0].startswith("The best fid is 3.000 ± 0.010, of ddim eta=1 at S=20")
    assert sentences(table([good, bad]), []) == ["Nothing here can be judged: every score is rank-deficient."]


def test_a_table_says_what_its_scores_are_flagged_with():
    flagged = record("ddim:eta=0", 10, flags=("rank-deficient", "of-a-plugin"))
    (group,) = tables_of([flagged, record("ddim:eta=1", 10, flags=("rank-deficient",))])
    notes = [
        "rank-deficient, 2 of 2 cells: too few samples for the dimension: bias is not corrected, plain values"
        " are compared",
        "of-a-plugin, 1 of 2 cells",
    ]
    assert " ".join(sheets.plain(score_sheet(group)).splitlines()).endswith(" ".join(notes))
    assert sheets.markdown(score_sheet(group)).splitlines()[-3::2] == notes
    assert sheets.latex(score_sheet(group)).splitlines()[-2:] == [f"% {note}" for note in notes]
    (group,) = tables_of([record("ddim:eta=0", 10)])
    legend = "± one standard error; * best of its column, ~ cannot be told from it (paired, 95%)"
    assert sheets.plain(score_sheet(group)).splitlines()[-1] == legend


def test_a_score_with_a_right_value_is_drawn_and_told_by_its_distance_from_it():
    """Noise (0.1) is not the best of a score for which 0.5 is right."""
    values = {(ETA0, 10): 0.1, (ETA0, 20): 0.45, (ETA1, 10): 0.7, (ETA1, 20): 0.8}
    records = [record(*place, value, metric="copying_pixels", target=0.5) for place, value in values.items()]
    (group,) = tables_of(records)
    assert direction(group) == "0.5 is right"
    assert "The best copying_pixels is 0.450" in sentences(group, find_claims(group))[0]
    points = [(1.0, 0.1), (1.0, 0.7), (2.0, 0.45), (3.0, 0.3)]
    assert pareto_front(points, higher_is_better=False, target=0.5) == [(1.0, 0.7), (2.0, 0.45)]
    shown = heat_map(group)
    assert shown.axes[1].get_ylabel() == "copying_pixels (distance from 0.5)"
    assert {finding.verdict for finding in find_claims(group)} == {"not tested"}


def test_two_models_of_one_file_have_two_titles(tmp_path, capsys):
    """``:a:`` is an emoji to a terminal library, and the name of a model here."""
    models = ("mine.py:a", "mine.py:b", "x/mine.py:a")
    store = Store(tmp_path)
    store.prepare()
    for model in models:
        one = record("ddim:eta=0", 10, model=model)
        store.write(replace(one, model=replace(one.model, weights=model)))
    assert main(["table", "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    found = tables_of(store.read()[0])
    assert [table.title.partition(": ")[0] for table in found] == sorted(models)
    assert len({table.slug for table in found}) == 3
    assert all(table.title in shown for table in found)
    title = page(store, store.read()[0])["title"]
    assert sorted(title.split(", ")) == ["mine.py:a", "mine.py:b", "x/mine.py:a"]


def test_a_title_names_time_grids_in_one_order_whatever_records_come_first():
    records = [record(ETA0, 10, spacing=spacing) for spacing in ("time", "edm", "quadratic")]
    titles = {tables_of(some)[0].title for some in (records, records[::-1])}
    assert len(titles) == 1
    assert "spacing edm and quadratic and time" in titles.pop()
