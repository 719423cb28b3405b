"""What the committed runs show, and that anyone can make their tables again.

The DDIM paper's table 1 shows that fewer steps cost little at eta = 0, more with eta, and most with
sigma-hat, and that at S = T the noise no longer hurts. It must hold on the exact model; on the shipped
network the tests say what holds and what does not.
"""

from itertools import pairwise
from pathlib import Path

import pytest

from bench.records.record import FLOOR
from bench.records.store import Store
from bench.records.trial import split_option
from bench.report.tables.scores import score_sheet
from bench.report.tables.sheets import FORMATS
from bench.report.tables.table import tables_of
from bench.stats.comparison import compare

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
ETAS = [f"ddim eta={eta}" for eta in ("0", "0.2", "0.5", "1")]
ROWS = [*ETAS, "ddpm fixedsmall", "ddpm fixedlarge", "ddpm learned"]
STEPS = [10, 20, 50, 100, 1000]
SIGMA_HAT = "ddpm fixedlarge"


def records(name):
    found, damaged = Store(REFERENCE / name).read()
    assert damaged == []
    return found


def scores(name, metric):
    return {(r.sampler.label, r.trial.steps): r.scores[metric] for r in records(name)}


def z(worse, better):
    """How many standard errors of the paired difference lie between two scores."""
    return compare(worse, better).z


@pytest.mark.parametrize("name", ["digits", "exact-digits"])
def test_the_runs_are_whole(name):
    table = scores(name, "fd_digits")
    assert set(table) == {(row, steps) for row in ROWS for steps in STEPS} | {(FLOOR, 0)}
    for record in records(name):
        assert record.status == "done"
        assert record.trial.n >= 1000
        assert record.environment.commit
        assert record.environment.dirty is False
        if record.kind == "samples":
            assert record.cost.calls == record.trial.steps == record.grid.steps


@pytest.mark.parametrize("name", ["digits", "exact-digits", "cifar10-small", "cifar10-ddpm"])
def test_the_committed_tables_are_made_of_the_records(name):
    (group,) = tables_of(records(name))
    for form, suffix in (("text", "txt"), ("markdown", "md"), ("csv", "csv")):
        committed = REFERENCE / name / "tables" / f"{group.slug}.{suffix}"
        assert FORMATS[form](score_sheet(group)) == committed.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("run", "metric"), [("exact-digits", "fd_pixels"), ("cifar10-small", "fd_inception_768")]
)
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
    table = scores("cifar10-small", "fd_inception_768")
    few = {(row, steps) for row in ROWS for steps in STEPS[:-1]}
    assert set(table) == few | {(FLOOR, 0)}
    for record in records("cifar10-small"):
        assert (record.status, record.trial.n) == ("done", 500)
        assert record.environment.commit
    (group,) = tables_of(records("cifar10-small"))
    assert group.title.endswith("cifar10-train-first-5000.npz")


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
    table = scores("cifar10-small", "fd_inception_768")
    for steps in STEPS[:-1]:
        for row in ROWS:
            assert row == SIGMA_HAT or z(table[SIGMA_HAT, steps], table[row, steps]) > 2, (row, steps)


def test_noise_is_best_from_fifty_steps_on_on_cifar10():
    """The network errs, and eta = 0 keeps what it errs: the paper's network shows it at S = T only."""
    table = scores("cifar10-small", "fd_inception_768")
    for steps in (50, 100):
        assert z(table["ddim eta=0", steps], table["ddim eta=1", steps]) > 2
    assert z(table["ddim eta=0", 100], table["ddim eta=0", 20]) > 2


def test_the_learned_variance_is_worse_than_the_fixed_small_one_on_cifar10():
    table = scores("cifar10-small", "fd_inception_768")
    for steps in STEPS[:-1]:
        assert z(table["ddpm learned", steps], table["ddpm fixedsmall", steps]) > 2, steps


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
