"""What the committed runs show, and that anyone can make their tables again.

The DDIM paper's table 1 shows that fewer steps cost little at eta = 0, more with eta, and most with
sigma-hat, and that at S = T the noise no longer hurts. It must hold on the exact model; on the shipped
network the tests say what holds and what does not.
"""

from itertools import pairwise
from pathlib import Path

import pytest

from bench import get_sampler
from bench.records.record import FLOOR
from bench.records.store import Store
from bench.records.trial import split_option
from bench.report.tables.findings import find_claims
from bench.report.tables.scores import score_sheet
from bench.report.tables.sheets import FORMATS
from bench.report.tables.table import tables_of
from bench.stats.comparison import compare
from samplers.sets import FAST

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
ETAS = [f"ddim eta={eta}" for eta in ("0", "0.2", "0.5", "1")]
ROWS = [*ETAS, "ddpm fixedsmall", "ddpm fixedlarge", "ddpm learned"]
STEPS = [10, 20, 50, 100, 1000]
SIGMA_HAT = "ddpm fixedlarge"
GRIDS = ("edm", "logsnr", "time")
CIFAR = "fd_cifar_resnet_96"
FAST_RUNS = ("digits-fast", "exact-digits-fast", "cifar10-small-fast")
MADE = ("digits", "exact-digits", "cifar10-small", *FAST_RUNS)


def verdicts(name):
    """{(claim, time grid): verdict} of a run."""
    (table,) = tables_of(records(name))
    return {(found.claim.name, found.spacing): found.verdict for found in find_claims(table)}


def records(name):
    found, damaged = Store(REFERENCE / name).read()
    assert damaged == []
    return found


def scores(name, metric):
    """The scores of a run by row and number of steps."""
    return {(r.sampler.label, r.trial.steps): r.scores[metric] for r in records(name)}


def z(worse, better):
    """How many standard errors of the paired difference lie between two scores."""
    return compare(worse, better).z


def whole(record):
    """Whether a record is of a clean checkout, done, of enough samples."""
    known = record.environment.commit and record.environment.dirty is False
    return record.status == "done" and record.trial.n >= 500 and known


@pytest.mark.parametrize("name", ["digits", "exact-digits"])
def test_the_runs_are_whole(name):
    table = scores(name, "fd_digits")
    fast = [get_sampler(one) for one in FAST.samplers] if name == "digits" else []
    expected = {(row, steps) for row in ROWS for steps in STEPS} | {(FLOOR, 0)}
    expected |= {(one.label, steps) for one in fast for steps in STEPS if steps <= (one.most_steps or 0)}
    assert set(table) == expected
    for record in records(name):
        assert whole(record)
        if record.kind == "samples" and record.sampler.label in ROWS:
            assert record.cost.calls == record.trial.steps == record.grid.steps


@pytest.mark.parametrize("name", FAST_RUNS)
def test_every_fast_sampler_is_there_on_three_time_grids(name):
    found = [record for record in records(name) if record.kind == "samples"]
    assert all(map(whole, found))
    places = {(r.trial.sampler, r.trial.spacing, r.trial.steps) for r in found}
    fewest = range(3 if name.startswith("cifar10") else 2, 11)
    rows = {get_sampler(one).spec for one in FAST.samplers}
    assert places >= {(row, grid, s) for row in rows for grid in GRIDS for s in fewest}


@pytest.mark.parametrize("name", FAST_RUNS)
def test_order_two_beats_ddim_at_ten_calls(name):
    """What DPM-Solver's abstract says of CIFAR-10, with an error bar: 4.70 against DDIM's 13.36."""
    found = verdicts(name)
    assert {found["order-2-beats-ddim", grid] for grid in GRIDS} == {"holds"}


@pytest.mark.parametrize("grid", GRIDS)
def test_heun_loses_to_ddim_of_as_many_calls_below_ten_on_the_exact_model(grid):
    """As in diff-sampler's tables, where it has 319.87 at 4 calls and 15.93 at 10, and DDIM 15.69."""
    assert verdicts("exact-digits-fast")["heun-late", grid] == "holds"


def test_two_steps_of_memory_beat_two_calls_a_step_on_the_grids_of_the_solvers():
    for run in ("digits-fast", "exact-digits-fast"):
        found = verdicts(run)
        assert {found["multistep-beats-single", grid] for grid in ("edm", "logsnr")} == {"holds"}
    assert verdicts("exact-digits-fast")["multistep-beats-single", "time"] == "fails"


def test_unipc_is_not_always_better_than_its_rival_at_five_to_ten_calls():
    for run in ("digits-fast", "exact-digits-fast"):
        assert "holds" not in {verdicts(run)["unipc-few", grid] for grid in GRIDS}
    found = verdicts("cifar10-small-fast")
    assert {grid: found["unipc-few", grid] for grid in GRIDS} == {
        "edm": "holds",
        "logsnr": "holds",
        "time": "fails",
    }


@pytest.mark.parametrize(("run", "even"), [("digits-fast", "holds"), ("exact-digits-fast", "undecided")])
def test_order_three_is_worth_fifteen_steps_on_one_grid_at_most(run, even):
    """DPM-Solver++'s third order against its second from 15 steps on: even in log SNR, not on others."""
    found = verdicts(run)
    assert {grid: found["order-3-late", grid] for grid in GRIDS} == {
        "edm": "fails",
        "logsnr": even,
        "time": "fails",
    }


def test_ten_calls_reach_the_floor_on_the_exact_model():
    """iPNDM on Karras et al.'s levels: what DDIM does not reach with a hundred even time steps."""
    (table,) = tables_of(records("exact-digits-fast"))
    score, floor = table.cells["ipndm order=4 on edm", 10].score, table.floor
    assert abs(score.value - floor.value) < 3 * (score.se**2 + floor.se**2) ** 0.5


@pytest.mark.parametrize("name", [*MADE, "cifar10-ddpm"])
def test_the_committed_tables_are_made_of_the_records(name):
    (group,) = tables_of(records(name))
    for form, suffix in (("text", "txt"), ("markdown", "md"), ("csv", "csv")):
        committed = REFERENCE / name / "tables" / f"{group.slug}.{suffix}"
        assert FORMATS[form](score_sheet(group)) == committed.read_text(encoding="utf-8")


@pytest.mark.parametrize(("run", "metric"), [("exact-digits", "fd_pixels"), ("cifar10-small", CIFAR)])
def test_the_paper_s_shape_at_ten_steps_holds(run, metric):
    """Its 13.36, 16.66, 41.07 and 367.43: on the exact model, and in another space on another network."""
    table = scores(run, metric)
    order = ["ddim eta=0", "ddim eta=0.5", "ddim eta=1", SIGMA_HAT]
    for better, worse in pairwise(order):
        assert z(table[worse, 10], table[better, 10]) > 2, (worse, better)


def test_at_a_thousand_steps_the_exact_model_s_samples_are_at_the_floor():
    for metric in ("fd_pixels", "fd_digits"):
        table = scores("exact-digits", metric)
        floor = table[FLOOR, 0]
        for row in ROWS:
            score = table[row, 1000]
            assert abs(score.value - floor.value) < 3 * (score.se**2 + floor.se**2) ** 0.5, (metric, row)


def test_more_noise_is_worse_at_ten_steps_on_the_shipped_network():
    """In the classifier's features a thousand samples put eta = 1 only 1.6 standard errors above eta = 0."""
    for metric, least in (("fd_digits", 1.5), ("fd_pixels", 2)):
        table = scores("digits", metric)
        assert z(table[SIGMA_HAT, 10], table["ddim eta=1", 10]) > 2
        assert z(table["ddim eta=1", 10], table["ddim eta=0", 10]) > least


def test_small_etas_are_a_tie_at_ten_steps_on_the_shipped_network():
    """The paper's 13.36, 14.04, 16.66 are apart by less than a thousand samples of this network can tell."""
    table = scores("digits", "fd_digits")
    for eta in ("0.2", "0.5"):
        assert abs(z(table[f"ddim eta={eta}", 10], table["ddim eta=0", 10])) < 2


def test_noise_is_best_at_a_thousand_steps_on_the_shipped_network():
    """As in the paper, where sigma-hat's 3.17 beats eta = 0's 4.04: noise corrects the network's errors."""
    table = scores("digits", "fd_digits")
    assert z(table["ddim eta=0", 1000], table["ddim eta=1", 1000]) > 2
    assert z(table["ddim eta=0", 1000], table[SIGMA_HAT, 1000]) > 2


def test_every_row_improves_with_steps_on_the_shipped_network():
    table = scores("digits", "fd_digits")
    for row in ROWS:
        assert z(table[row, 10], table[row, 100]) > 2, row


def test_the_best_cell_is_within_three_times_the_floor():
    table = scores("digits", "fd_digits")
    best = min(score.value for (row, _), score in table.items() if row != FLOOR)
    assert best < 3 * table[FLOOR, 0].value


def test_the_cifar10_run_is_whole():
    table = scores("cifar10-small", CIFAR)
    few = {(row, steps) for row in ROWS for steps in STEPS[:-1]}
    assert set(table) == few | {(FLOOR, 0)}
    for record in records("cifar10-small"):
        assert (record.status, record.trial.n) == ("done", 500)
        assert record.environment.commit
    (group,) = tables_of(records("cifar10-small"))
    assert group.title.endswith("cifar10-train.npz")
    assert not any(group.unjudged(column) for column in group.columns)


def test_scoring_costs_less_than_a_tenth_of_drawing_on_cifar10():
    for record in records("cifar10-small"):
        if record.kind == "samples":
            assert record.cost.scoring_seconds < record.cost.sampling_seconds / 10


def test_the_gpu_run_shows_that_a_network_trained_for_minutes_wants_noise():
    """What eta = 0 keeps of its errors grows with S; DDPM's fixedsmall is best at every S."""
    found = {(r.sampler.label, r.trial.steps): r for r in records("cifar10-ddpm") if r.status == "done"}
    table = {place: record.scores["fd_inception_768"] for place, record in found.items()}
    assert {record.environment.device_name for record in found.values()} == {"NVIDIA H200"}
    assert all(record.trial.n == 2000 for record in found.values())
    for steps in (10, 20, 50):
        rows = [row for row, column in table if column == steps]
        assert all(row == SIGMA_HAT or z(table[SIGMA_HAT, steps], table[row, steps]) > 2 for row in rows)
        best = "ddpm fixedsmall"
        assert all(row == best or z(table[row, steps], table[best, steps]) > 2 for row in rows)
    assert z(table["ddim eta=0", 50], table["ddim eta=0", 10]) > 2
    assert z(table["ddpm fixedsmall", 10], table["ddpm fixedsmall", 50]) > 2
    skipped = [r for r in records("cifar10-ddpm") if r.status == "skipped"]
    assert {r.sampler.label for r in skipped} == {"ddpm learned"}


def test_sigma_hat_is_worst_up_to_a_hundred_steps_on_cifar10():
    table = scores("cifar10-small", CIFAR)
    for steps in STEPS[:-1]:
        for row in ROWS:
            assert row == SIGMA_HAT or z(table[SIGMA_HAT, steps], table[row, steps]) > 2, (row, steps)


def test_noise_no_longer_hurts_at_a_hundred_steps_on_cifar10():
    """The network errs, and eta = 0 keeps what it errs: the paper's network shows it at S = T only."""
    table = scores("cifar10-small", CIFAR)
    for steps in (10, 20, 50):
        assert z(table["ddim eta=1", steps], table["ddim eta=0", steps]) > 2
    assert abs(z(table["ddim eta=1", 100], table["ddim eta=0", 100])) < 2
    assert z(table["ddim eta=0", 100], table["ddim eta=0", 50]) > 2


def test_the_learned_variance_is_better_than_the_fixed_small_one_at_twenty_steps_alone_on_cifar10():
    table = scores("cifar10-small", CIFAR)
    found = {s: z(table["ddpm learned", s], table["ddpm fixedsmall", s]) for s in STEPS[:-1]}
    assert found.pop(20) < -2
    assert all(one > 2 for one in found.values())


def test_guidance_trades_recall_for_the_asked_label():
    """More guidance: more digits are what was asked for, and they are more alike."""
    found = {
        (split_option(r.trial.model, "guidance")[1], r.trial.sampler): r
        for r in records("digits-conditional")
        if r.kind == "samples"
    }
    scales = ["1", "2", "4", "8"]
    for sampler in {sampler for _, sampler in found}:
        rows = [found[scale, sampler] for scale in scales]
        assert [row.cost.evaluations for row in rows] == [20, 40, 40, 40]
        assert [row.cost.calls for row in rows] == [20] * 4
        recall = [row.scores["recall_digits"].value for row in rows]
        assert recall == sorted(recall, reverse=True) and recall[0] > 2 * recall[-1]
        named = [row.scores["label_accuracy_digits"].value for row in rows]
        assert named[0] < 0.95 < named[1] and min(named[1:]) > 0.95
        distance = [row.scores["fd_digits"].value for row in rows]
        assert distance == sorted(distance)
