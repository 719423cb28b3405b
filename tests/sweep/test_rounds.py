"""Sweeps in rounds: nothing drawn or counted twice, and what the records say of how they ended."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from support.commands import bench
from support.sweeps import Silent

from bench import get_sampler, load_results, sampler
from bench.catalog import Origin
from bench.commands.main import main
from bench.errors import UsageError
from bench.metrics.groups import GroupedStatistics
from bench.plugins.loading import registry
from bench.records.store import Store
from bench.records.trial import Trial
from bench.report.tables.scores import score_sheet
from bench.report.tables.table import shared, tables_of
from bench.report.verify import verify
from bench.sweep.request import Sweep
from bench.sweep.rounds import RoundCost, Rounds, Rule, looks
from bench.sweep.runner import Runner

ROWS = ("ddim", "ddim:eta=0.05", "ddim:eta=1")
"""Two rules that hardly differ on the exact model, and one that is worse by a tenth."""


@sampler(order=1, source="none")
def broken(model, x, grid, noise):
    """Break at the first step."""
    raise ValueError("it broke")
    yield x


def sweep(**changes):
    samplers = tuple(map(get_sampler, changes.pop("samplers", ROWS)))
    asked = {"model": "exact-gaussian", "samplers": samplers, "steps": (5,), "n": 1000, "batch": 150}
    return Sweep(**asked | changes)


def run(folder, rule, elapsed=lambda: 0.0, **changes):
    rounds, seen = Rounds(Runner(sweep(**changes), Store(folder)), rule, elapsed=elapsed), Silent()
    return rounds.run(lambda: nullcontext(seen)), seen


def outcomes(records):
    return {(r.trial.sampler, r.trial.n): r.stopping.outcome for r in records}


def test_the_rounds_double_and_end_at_most_at_n():
    assert looks(1000) == (250, 500, 1000)
    assert looks(1999) == (499, 998, 1996)
    assert looks(60) == (60,)
    assert looks(50_000)[-1] <= 50_000
    assert looks(4096, first=4096) == (4096,)


@pytest.mark.parametrize(("n", "times"), [(250, 2), (333, 4), (21, 8)])
def test_groups_of_a_smaller_trial_make_up_those_of_a_larger(n, times):
    x = np.random.default_rng(0).normal(size=(n * times, 3))
    small = GroupedStatistics(n, 3, keep_features=True)
    small.add(x[:n], range(n))
    made = small.as_part_of(n * times)
    made.add(x[n:], range(n, n * times))
    whole = GroupedStatistics(n * times, 3, keep_features=True)
    whole.add(x, range(n * times))
    assert made.present == whole.present
    for group in whole.present:
        assert made.group(group).n == whole.group(group).n
        np.testing.assert_allclose(made.group(group).mean, whole.group(group).mean, rtol=1e-10)
        np.testing.assert_allclose(
            made.group(group).scatter, whole.group(group).scatter, rtol=1e-9, atol=1e-9
        )
    np.testing.assert_array_equal(made.features, whole.features)


@pytest.mark.parametrize(("n", "larger"), [(250, 600), (10, 20)])
def test_groups_that_would_have_to_be_divided_are_refused(n, larger):
    with pytest.raises(ValueError, match="double"):
        GroupedStatistics(n, 3).as_part_of(larger)


def test_a_beaten_sampler_is_dropped_and_the_others_are_drawn_on(tmp_path):
    records, seen = run(tmp_path, Rule(tie=1e-6))
    (beaten,) = (r for r in records if r.stopping.outcome == "beaten")
    assert (beaten.trial.sampler, beaten.trial.n) == ("ddim:eta=1,clip=none", 250)
    assert beaten.stopping.by in ("ddim eta=0", "ddim eta=0.05")
    assert beaten.stopping.rounds == (250, 500, 1000)
    rest = {key: outcome for key, outcome in outcomes(records).items() if "eta=1," not in key[0]}
    assert [rest["ddim:eta=0,clip=none", n] for n in (250, 500, 1000)] == ["continued", "continued", "most"]
    told = seen.samples - 2 * (250 + 500)  # less those found drawn at the second round and the third
    assert told == 250 + 2 * 1000


def test_no_sample_is_drawn_twice_and_the_scores_are_those_of_a_plain_run(tmp_path):
    records, _ = run(tmp_path / "rounds", Rule(tie=1e-6))
    plain = Runner(sweep(), Store(tmp_path / "plain"))
    for record in plain.run(plain.plan(), Silent()):
        same = [r for r in records if r.trial == record.trial]
        for other in same:
            ours, theirs = other.scores["fd_pixels"], record.scores["fd_pixels"]
            assert ours.value == pytest.approx(theirs.value, rel=1e-4)
            assert ours.leave_one_out == pytest.approx(theirs.leave_one_out, rel=1e-4)
    assert not list((tmp_path / "rounds" / "blocks").glob("*/*.npz"))


def test_a_margin_that_holds_ends_the_column(tmp_path):
    records, _ = run(tmp_path, Rule(tie=0.2), samplers=ROWS[:2])
    assert set(outcomes(records).values()) == {"tied"}
    assert {r.trial.n for r in records} == {250}


def test_a_single_sampler_that_is_left_is_the_best(tmp_path):
    records, _ = run(tmp_path, Rule(tie=1e-6), samplers=("ddim", "ddim:eta=1"))
    assert sorted(outcomes(records).values()) == ["beaten", "best"]


def test_a_trial_ends_when_its_error_is_small_enough(tmp_path):
    records, _ = run(tmp_path, Rule(se=0.0025), n=2000)
    ended = [r for r in records if r.stopping.outcome == "precise"]
    assert ended
    for record in ended:
        assert record.scores["fd_pixels"].se <= 0.0025
        earlier = [r for r in records if r.trial.at_any_n == record.trial.at_any_n and r.continued]
        assert all(r.scores["fd_pixels"].se > 0.0025 for r in earlier)


def test_a_second_run_draws_nothing_and_claims_the_same(tmp_path):
    first, _ = run(tmp_path, Rule(tie=1e-6))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    second, seen = run(tmp_path, Rule(tie=1e-6))
    assert seen.samples == 0
    assert outcomes(first) == outcomes(second)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}


def test_a_narrower_question_goes_on_from_the_samples_that_are_there(tmp_path):
    _, first = run(tmp_path, Rule(tie=0.2), samplers=ROWS[:2])
    _, second = run(tmp_path, Rule(tie=1e-6), samplers=ROWS[:2])
    assert first.samples == 2 * 250
    new = second.samples - 2 * (250 + 500)  # those found drawn are told too
    assert new == 2 * (1000 - 250)


def test_a_trial_that_fails_ends_no_other(tmp_path, monkeypatch):
    for known, made in (
        (registry().samplers.entries, broken),
        (registry().samplers.origins, Origin("a test", "")),
    ):
        monkeypatch.setitem(known, "broken", made)
    records, _ = run(tmp_path / "r", Rule(tie=1e-6), samplers=(*ROWS, "broken"))
    (failed,) = (r for r in records if r.status == "failed")
    assert failed.stopping.outcome == "unscored"
    assert failed.trial.n == 250
    assert len(tables_of(records)) == 1


def test_a_table_holds_each_cell_at_its_own_n_and_compares_on_shared_images(tmp_path):
    records, _ = run(tmp_path, Rule(tie=1e-6))
    (table,) = tables_of(records)
    cells = {row: table.cells[row, 5] for row in table.rows}
    assert {row: cell.record.trial.n for row, cell in cells.items()} == {
        "ddim eta=0": 1000, "ddim eta=0.05": 1000, "ddim eta=1": 250,
    }  # fmt: skip
    assert [score.n for score in shared(cells["ddim eta=1"], cells["ddim eta=0"])] == [250, 250]
    best, ties = table.leaders(5)
    assert {best, *ties} == {"ddim eta=0", "ddim eta=0.05"}
    sheet = score_sheet(table)
    assert "n=250 to 1,000" in sheet.title
    assert sheet.rows[2][1].endswith("(n=250)")
    assert "S=5: dropped at n=250: beaten by ddim eta=0" in sheet.note
    assert "--until-tie 1e-06" in sheet.note


def test_without_a_question_the_time_alone_ends_the_rounds(tmp_path):
    """A clock that is asked before and after a round, and says 10 s before the third."""
    clock = iter([0.0, 0.5, 1.0, 1.0, 10.0])
    records, _ = run(tmp_path, Rule(budget=9.0), elapsed=lambda: next(clock), n=4000)
    last = {r.trial.at_any_n: r for r in records}.values()
    assert {(r.trial.n, r.stopping.outcome) for r in last} == {(500, "time")}
    assert list((tmp_path / "blocks").glob("*/*.npz"))  # kept, to go on from
    more, seen = run(tmp_path, Rule(budget=9.0), n=1000)
    assert {r.trial.n for r in more} == {250, 500, 1000}
    assert seen.samples - 3 * 500 == 3 * 500


def test_cheap_columns_go_on_where_the_time_does_not_allow_dear_ones(tmp_path):
    runner = Runner(sweep(steps=(5, 50)), Store(tmp_path))
    rounds = Rounds(runner, Rule(budget=1e9))
    measured = rounds._measure

    def fixed(plan, records, seconds):
        measured(plan, records, seconds)
        cost = {trial: trial.steps * 1.0 for trial in rounds._cost.an_image}
        rounds._cost = RoundCost(cost, 0.0, 1)

    rounds._measure = fixed
    rounds.rule = Rule(budget=5 * 250 * 3 * 1.5)
    records = rounds.run(lambda: nullcontext(Silent()))
    reached = {s: max(r.trial.n for r in records if r.trial.steps == s) for s in (5, 50)}
    assert reached == {5: 500, 50: 250}


def test_what_a_round_costs_is_told_from_images_and_trials():
    a, b = (replace(sweep_trial(), sampler=name) for name in "ab")
    cost = RoundCost({a: 0.1, b: 0.2}, 3.0, 2)
    assert cost.seconds({a: 100, b: 100}) == pytest.approx((10 + 20) / 2 + 2 * 3.0)
    assert cost.seconds({a: 0}) == 0


def sweep_trial():
    return Trial("m", "s", "uniform", 5, 0, 0, 0, "float32", "cpu", ("fd_pixels",))


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"tie": 0.02, "se": 0.1}, "give one of them"),
        ({"tie": 0.0}, "a part of a score"),
        ({"tie": float("nan")}, "a part of a score"),
        ({"tie": 2.0}, "a part of a score"),
        ({"se": -1.0}, "greater than 0"),
        ({"se": float("inf")}, "greater than 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(rule, sentence):
    with pytest.raises(UsageError, match=sentence):
        Rule(**rule)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--until-tie", "0.02", "--until-se", "0.1"], "give one of them"),
        (["--until-tie", "0"], "--until-tie takes a part of a score, as 0.02 for 2%, got 0"),
        (["--until-tie", "x"], "argument --until-tie: invalid float value"),
        (["--budget=-3m"], "--budget takes a time greater than 0, as in 90s, 30m or 1h30m, got '-3m'"),
        (["--budget", "-3m"], "argument --budget: expected one argument"),
        (["--budget", "0m"], "--budget takes a time greater than 0"),
        (["--budget", "30"], "--budget takes a time greater than 0"),
        (["--budget", "0.0001s"], "--budget is too short"),
    ],
)
def test_the_command_line_says_what_is_wrong_and_draws_nothing(options, sentence, tmp_path, capsys):
    asked = ["--model", "exact-gaussian", "--samplers", "ddim", "--steps", "5", "--results", str(tmp_path)]
    assert main(["run", *asked, *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.json"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounds")
    asked = ["--model", "exact-gaussian", "--samplers", *ROWS, "--steps", "5", "--n", "1000"]
    done = bench("run", *asked, "--until-tie", "0.000001", "--results", folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_verb_prints_rounds_and_how_they_ended(results):
    _, done = results
    assert "round 1 of at most 3: n = 250, 3 of 3 trials" in done.stderr
    assert "round 3 of at most 3: n = 1,000, 2 of 3 trials" in done.stderr
    assert "dropped at n=250: beaten by ddim eta=0" in done.stdout
    assert "real images (n=1,000)" in done.stdout


def test_the_folder_still_is_what_its_records_make(results):
    assert verify(results[0]).findings == ()


def test_the_frame_says_why_a_trial_stopped(results):
    frame = load_results(results[0])
    assert set(frame[frame.kind == "samples"].stopped) == {"continued", "beaten", "most"}


def test_pairs_of_different_n_are_compared_on_the_images_that_both_have(results, capsys):
    where = ["--results", str(results[0])]
    assert main(["compare", "ddim:eta=0@5", "ddim:eta=1@5", *where]) == 0
    out = capsys.readouterr().out
    assert "compared on the 250 images that both have" in out
    assert main(["compare", "--column", "5", *where]) == 0
    out = capsys.readouterr().out
    assert "at least 250" in out
    assert "worse" in out
    assert main(["show", "ddim:eta=1@5", *where]) == 0
    assert "n = 250, 500, 1,000: beaten ddim eta=0" in capsys.readouterr().out


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    asked = ["--model", "exact-gaussian", "--samplers", "ddim", "ddim:eta=0.05", "--steps", "60"]
    asked += ["--n", "16000", "--batch", "100", "--until-tie", "0.000001", "--results", str(tmp_path)]
    command = [sys.executable, "-m", "bench", "run", *asked]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(list((tmp_path / "records").glob("*.json"))) < 4:
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
    killed = {path.stem for path in (tmp_path / "records").glob("*.json")}
    assert len(killed) < 14
    drawn = load_results(tmp_path).set_index("key").finished
    seen = Silent()
    made = sweep(samplers=ROWS[:2], steps=(60,), n=16000, batch=100)
    records = Rounds(Runner(made, Store(tmp_path)), Rule(tie=1e-6)).run(lambda: nullcontext(seen))
    again = load_results(tmp_path).set_index("key").finished
    assert (again[drawn.index] == drawn).all()
    assert {r.trial.n for r in records} == set(looks(16000))
    plain = Runner(sweep(samplers=ROWS[:1], steps=(60,), n=16000), Store(tmp_path / "plain"))
    (alone,) = plain.run(plain.plan(), Silent())
    whole = next(r for r in records if r.trial.n == 16000 and r.trial.sampler == alone.trial.sampler)
    assert whole.scores["fd_pixels"].value == pytest.approx(alone.scores["fd_pixels"].value, rel=1e-4)
