"""The leaderboard as files: what can be held against each other stands in one board, and links lead there."""

import csv
import io
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from urllib.parse import unquote

import pytest
from support.pages import EVIL, Elements
from support.reports import record, results

from bench import UsageError
from bench.errors import BenchError
from bench.records.record import Environment
from bench.records.store import Store
from bench.report.page.details import command_of
from bench.report.site.boards import boards_of, machine_of, newest
from bench.report.site.sources import Source
from bench.report.site.write import write_site
from bench.report.verify import Checked
from bench.stats.comparison import corrected

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
VALUES = {("ddim:eta=0", 10): 2.0, ("ddim:eta=0", 20): 1.0, ("ddim:eta=1", 10): 4.0, ("dpmpp-2m", 5): 1.5}
CALLS = {("ddim:eta=0", 10): 10, ("ddim:eta=0", 20): 20, ("ddim:eta=1", 10): 10, ("dpmpp-2m", 5): 9}


def trials(machine="a processor", slower=1.0, threads=2, **fields):
    """Records of one model on a machine: a network call takes 2 ms there, a sampler a third more."""
    made = []
    for (spec, steps), value in VALUES.items():
        one = record(spec, steps, value, model="digits", metric="fd_digits", n=1000, seed=steps, **fields)
        calls = CALLS[spec, steps]
        network = 0.002 * 1000 * calls * slower
        cost = replace(one.cost, calls=calls, model_seconds=network, sampling_seconds=4 / 3 * network)
        where = replace(one.environment, device_name=machine, threads=threads)
        made.append(replace(one, cost=cost, environment=where))
    return made


def source(folder, records, name="mine"):
    store = Store(folder)
    store.prepare()
    for one in records:
        store.write(one)
    return Source(name, folder, records, Checked(folder, 3, len(records), ()), "d" * 64)


def test_a_board_holds_what_can_be_compared_from_any_machine():
    fast, slow = trials("A"), trials("B", slower=3.0)
    other = [record("ddim:eta=0", 10, 9.0, metric="fid")]
    first, second = boards_of([*fast, *slow, *other])
    assert (first.table.metric, second.table.metric) == ("fd_digits", "fid")
    assert list(first.tables) == ["A, 2 threads", "B, 2 threads"]
    assert len(first.lines) == 8
    assert [line.score.value for line in first.lines] == sorted(line.score.value for line in first.lines)


@pytest.mark.parametrize(
    "field", [{"weights": "11"}, {"space": "other"}, {"reference": "other"}, {"drawn": {"seed": 1}}]
)
def test_what_cannot_be_compared_stands_apart(field):
    assert len(boards_of([*trials("A"), *trials("B", **field)])) == 2


def test_latency_is_in_units_of_a_bare_call_of_the_same_trial():
    """Here a sampler adds a third to its network, however fast that was on the day."""
    first, *rest = trials("A")
    cost = replace(first.cost, model_seconds=0.3, sampling_seconds=0.4)
    untimed = replace(rest[0], cost=replace(rest[0].cost, model_seconds=0))
    (board,) = boards_of([replace(first, cost=cost), untimed, *rest[1:], *trials("B", slower=3.0)])
    for line in board.lines:
        timed = line.record.cost.model_seconds
        assert line.latency == (pytest.approx(4 / 3 * line.record.cost.calls) if timed else None)
    assert sum(line.latency is None for line in board.lines) == 1


def beaten(mine, all_lines, cost):
    """Whether another trial is at least as cheap and better, or as good and cheaper: the definition."""
    return any(
        (cost(one) <= cost(mine) and one.score.value < mine.score.value)
        or (cost(one) < cost(mine) and one.score.value <= mine.score.value)
        for one in all_lines
    )


def test_the_front_of_time_is_each_machine_s_own_and_that_of_calls_is_of_all():
    (board,) = boards_of([*trials("A"), *trials("B", slower=3.0)])
    for line in board.lines:
        here = [one for one in board.lines if one.machine == line.machine]
        assert ("calls" in line.fronts) is not beaten(line, board.lines, lambda one: one.record.cost.calls)
        assert ("time" in line.fronts) is not beaten(line, here, lambda one: one.record.cost.sampling_seconds)
    on = {(line.machine[0], line.label) for line in board.lines if "time" in line.fronts}
    assert on == set(product("AB", ("ddim eta=0", "dpmpp order=2 only")))


def test_marks_are_those_of_the_table():
    (board,) = boards_of(trials())
    marks = {(line.label, line.record.trial.steps): line.mark for line in board.lines}
    assert marks["dpmpp order=2 only", 5] == "best"  # of nine calls: the column of ten
    assert marks["ddim eta=0", 20] == "best"
    assert marks["ddim eta=1", 10] is None


def test_a_trial_made_twice_on_a_machine_is_the_later_one():
    early, *_ = trials()
    late = replace(early, environment=replace(early.environment, finished="2026-02-01T00:00:00+00:00"))
    elsewhere = replace(early, environment=replace(early.environment, device_name="B"))
    assert newest([late, early]) == newest([early, late]) == [late]
    assert len(newest([early, elsewhere])) == 2


def test_a_trial_of_all_time_steps_stands_there_once():
    made = [record("ddim:eta=0", steps, 1.0, spacing=grid, seed=steps) for steps, grid in
            ((10, "uniform"), (10, "edm"), (1000, "all"))]  # fmt: skip
    (board,) = boards_of(made)
    assert sorted(line.label for line in board.lines) == [
        "ddim eta=0 on all", "ddim eta=0 on edm", "ddim eta=0 on uniform"
    ]  # fmt: skip


def test_a_machine_is_its_name_and_the_threads_of_a_processor():
    one = record()
    assert machine_of(one) == "a processor"
    assert machine_of(replace(one, environment=Environment(device_name="A", threads=1))) == "A, 1 thread"
    graphics = replace(one.trial, device="cuda")
    assert (
        machine_of(replace(one, trial=graphics, environment=Environment(device_name="G", threads=4))) == "G"
    )
    assert machine_of(replace(one, environment=Environment())) == "an unnamed cpu"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    store = results(folder / "r")
    records = store.read()[0]
    made = [Source("first run", store.folder, records, Checked(store.folder, 9, 12, ()), "d" * 64)]
    made.append(source(folder / "b", trials("B"), "b"))
    write_site(made, folder / "out")
    return folder / "out", made


def test_the_page_asks_for_nothing_and_its_links_lead_to_the_records(site):
    out, sources = site
    page = Elements((out / "index.html").read_text(encoding="utf-8"))
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy.startswith("default-src 'none'")
    assert all("src" not in a for tag in ("img", "script", "iframe", "source") for a in page.all(tag))
    names = [a["id"] for _, a in page.found if "id" in a]
    assert len(names) == len(set(names))
    links = {a["href"] for a in page.all("a")}
    assert {link[1:] for link in links if link.startswith("#")} <= set(names)
    files = [unquote(link) for link in links if not link.startswith("#")]
    assert all((out / name).is_file() for name in files)
    scored = [r for s in sources for r in s.records if r.scores and r.kind == "samples"]
    assert len(files) == len(scored) + 1  # and all numbers as CSV
    for one in sources:
        for made in one.records:
            copied = out / "records" / one.name / f"{made.key}.json"
            assert copied.read_bytes() == (one.folder / "records" / f"{made.name}.json").read_bytes()


def test_every_cell_shows_its_command(site):
    out, sources = site
    page = Elements((out / "index.html").read_text(encoding="utf-8"))
    scored = [r for one in sources for r in one.records if r.scores and r.kind == "samples"]
    assert len(scored) == 13
    assert all(f" command {command_of(made)} " in page.text for made in scored)


def test_the_numbers_are_unrounded_in_the_csv(site):
    out, sources = site
    rows = list(csv.DictReader(io.StringIO((out / "leaderboard.csv").read_text(encoding="utf-8"))))
    made = {r.key: r for s in sources for r in s.records}
    assert len(rows) == len([r for r in made.values() if r.scores and r.kind == "samples"])
    for row in rows:
        score = made[row["key"]].scores[row["score"]]
        assert (float(row["value"]), float(row["se"])) == (score.value, score.se)
        assert row["command"].startswith("python -m bench run --model ")


def test_equal_folders_make_an_equal_site(site, tmp_path):
    out, sources = site
    write_site(sources[::1], tmp_path / "again")
    for path in out.rglob("*"):
        if path.is_file():
            assert (tmp_path / "again" / path.relative_to(out)).read_bytes() == path.read_bytes()


def test_what_was_not_drawn_again_is_said(site):
    text = Elements((site[0] / "index.html").read_text(encoding="utf-8")).text
    assert "Not drawn again: first run, b. Their tables" in text
    assert "nothing: it is published as it was told" in text


def test_a_site_is_made_anew_and_nothing_else_is_lost(site, tmp_path):
    _, sources = site
    out = tmp_path / "site"
    write_site(sources, out)
    (out / "records" / "old").mkdir()
    write_site(sources[:1], out)
    assert sorted(path.name for path in (out / "records").iterdir()) == ["first run"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site"]
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.tex").write_text("x")
    with pytest.raises(UsageError, match="holds other files than a leaderboard's"):
        write_site(sources, other)
    with pytest.raises(UsageError, match="is a file"):
        write_site(sources, other / "chapter1.tex")
    assert (other / "chapter1.tex").read_text() == "x"


def test_folders_without_a_score_are_nothing_to_publish(tmp_path):
    failed = source(tmp_path / "r", [record("ddim:eta=0", 10, status="failed", message="it broke")])
    with pytest.raises(BenchError, match="no trial of these folders has a score"):
        write_site([failed], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_whatever_a_record_or_a_folder_says_is_text(tmp_path):
    evil = record("ddim:eta=0", 10, 2.0, model=EVIL, metric=EVIL, flags=(EVIL,))
    named = replace(evil.sampler, label=EVIL, source=EVIL, plugin=EVIL)
    machine = Environment(device_name=EVIL, command=EVIL, versions={EVIL: EVIL}, commit=EVIL, finished=EVIL)
    made = replace(evil, sampler=named, environment=machine)
    write_site([replace(source(tmp_path / "r", [made]), name="x")], tmp_path / "out", EVIL)
    page = Elements((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    assert [len(page.all(tag)) for tag in ("script", "style", "img")] == [1, 1, 0]
    assert not any("onerror" in attributes for _, attributes in page.found)
    assert "{{7*7}}" in page.text and "49" not in page.text
    record_of = json.loads((tmp_path / "out" / "records" / "x" / f"{made.key}.json").read_text())
    assert record_of["sampler"]["label"] == EVIL


def test_a_record_s_key_is_no_way_out_of_the_folder(tmp_path):
    made = record("ddim:eta=0", 10, 2.0)
    one = source(tmp_path / "r", [made])
    outside = replace(one, records=[replace(made, key="x/../../../../etc/passwd")])
    with pytest.raises(BenchError, match="is no name of a record's file"):
        write_site([outside], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the committed runs are not at hand")
def test_the_reference_runs_are_the_first_leaderboard():
    """Every score of every drawn trial stands in one board once, and the best of all is its least loss."""
    made = [one for folder in sorted(REFERENCE.iterdir()) for one in Store(folder).read()[0]]
    boards = boards_of(made)
    scored = {(r.key, name) for r in made if r.kind == "samples" for name in r.scores}
    lines = [(line.record.key, board.table.metric) for board in boards for line in board.lines]
    assert len(lines) == len(set(lines)) and set(lines) == scored
    machines = {machine for board in boards for machine in board.tables}
    assert machines >= {"AMD EPYC (2 cores), 2 threads", "NVIDIA H200"}
    models = {board.table.trial.model for board in boards}
    assert {"digits", "exact-digits", "cifar10-small"} <= models
    for board in boards:
        sign = -1 if board.lines[0].score.higher_is_better else 1
        values = [sign * corrected(line.score) for line in board.lines]
        assert values == sorted(values)
        for cost in ("calls", "time"):
            assert any(cost in line.fronts for line in board.lines)
