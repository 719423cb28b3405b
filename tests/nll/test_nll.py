"""Bounds as records: their parts and errors, resuming, and the command line."""

import json
import math

import numpy as np
import pytest

from bench import NoiseSchedule, load_results, make_grid
from bench.commands.main import main
from bench.diffusion.bound import bound_noise, variational_bounds
from bench.nll.parts import METRICS, read_terms
from bench.nll.request import BoundRequest
from bench.nll.runner import BoundRunner
from bench.plugins.lookup import load_model
from bench.records.store import Store
from bench.report.tables.table import tables_of

LINEAR = NoiseSchedule.linear()
LN2 = math.log(2)


REQUEST = BoundRequest("exact-gaussian", steps=(4, 9), n=30, batch=10)


class Watcher:
    """Notes what it is told; interrupts after some network calls."""

    def __init__(self, stop_after=None):
        self.stop_after, self.calls, self.announced, self.reused, self.stale = stop_after, 0, None, None, None

    def planned(self, plan, calls):
        self.reused, self.stale, self.announced = len(plan.reused), plan.stale, calls

    def called(self, t):
        self.calls += 1
        if self.calls == self.stop_after:
            raise KeyboardInterrupt

    def ended(self, record):
        pass


def evaluate(folder, request=REQUEST, watcher=None):
    watcher = watcher or Watcher()
    return BoundRunner(request, Store(folder)).run(watcher), watcher


def test_records_hold_the_parts_and_their_errors(tmp_path):
    records, watcher = evaluate(tmp_path)
    assert (
        watcher.calls
        == watcher.announced
        == 3 * len({0, 333, 666, 999} | set(make_grid(LINEAR, 9, "openai").timesteps))
    )
    model = load_model("exact-gaussian")
    runner = BoundRunner(REQUEST, Store(tmp_path))
    x0 = runner.images.double() / 127.5 - 1
    frame = load_results(tmp_path).set_index("key")
    for record, cell in zip(records, runner.cells, strict=True):
        terms = variational_bounds(
            model.model, x0, [cell.chain], bound_noise(0, range(30), model.model.shape)
        )[0]
        row = frame.loc[record.key]
        values = dict(zip(METRICS, (terms.total, terms.prior, terms.kl.sum(0), terms.decoder), strict=True))
        for name, each in values.items():
            assert row[name] == pytest.approx(float(each.mean()), rel=1e-5)
            assert row[f"{name}_se"] == pytest.approx(float(each.std()) / math.sqrt(30), rel=1e-3, abs=1e-12)
        assert row.metric == METRICS[0]
        assert row.network_calls == record.trial.steps
        assert (row["variance"], row["clip"]) == (cell.chain.variance, "x0")
        table = read_terms(Store(tmp_path), record)
        assert table.term.tolist() == ["prior", *["kl"] * (row.steps - 1), "decoder"]
        assert table.bits_per_dim.sum() == pytest.approx(row.score, rel=1e-9)
        steps = terms.kl.std(1) / math.sqrt(30)
        np.testing.assert_allclose(table.se[1:-1], steps.numpy(), rtol=1e-3, atol=1e-9)
        assert table.t_next.tolist()[-1] == -1
        assert table.t.tolist()[1:] == [step.t for step in cell.chain.steps]


def test_second_run_computes_nothing(tmp_path):
    first, _ = evaluate(tmp_path)
    second, watcher = evaluate(tmp_path)
    assert (watcher.calls, watcher.announced, watcher.reused) == (0, 0, 6)
    assert [r.to_json() for r in second] == [r.to_json() for r in first]
    _, watcher = evaluate(tmp_path, BoundRequest("exact-gaussian", steps=(4, 5), n=30, batch=10))
    assert watcher.reused == 3
    assert watcher.calls == 3 * 5  # S = 5 alone


def test_stopped_run_goes_on_and_ends_the_same(tmp_path):
    whole, counted = evaluate(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "stopped", watcher=Watcher(stop_after=counted.calls // 2))
    store = Store(tmp_path / "stopped")
    assert store.read() == ([], [])
    assert len(list(store.blocks.glob("*/*.npz"))) == 6  # the first block of every trial
    next(store.blocks.glob("*/*.npz")).write_bytes(b"PK truncated")
    resumed, watcher = evaluate(tmp_path / "stopped")
    assert watcher.announced == watcher.calls < counted.calls
    for a, b in zip(whole, resumed, strict=True):
        assert a.scores == b.scores
        pd_a, pd_b = read_terms(Store(tmp_path / "whole"), a), read_terms(store, b)
        assert pd_a.equals(pd_b)
    assert not store.blocks.exists()


def test_record_of_other_weights_is_stale(tmp_path):
    records, _ = evaluate(tmp_path)
    path = Store(tmp_path).records / f"{records[0].name}.json"
    fields = json.loads(path.read_text())
    fields["provenance"]["weights"] = "another"
    path.write_text(json.dumps(fields))
    again, watcher = evaluate(tmp_path)
    assert [stale.fields for stale in watcher.stale] == [["weights"]]
    assert watcher.calls == 3 * 4
    assert again[0].scores == records[0].scores


def test_sweep_and_bound_stand_in_tables_of_their_own(tmp_path, capsys):
    common = [
        "--model",
        "exact-gaussian",
        "--n",
        "30",
        "--steps",
        "4",
        "--spacing",
        "openai",
        "--results",
        str(tmp_path),
    ]
    assert main(["run", "--samplers", "ddim", *common]) == 0
    assert main(["nll", *common]) == 0
    capsys.readouterr()
    groups = tables_of(Store(tmp_path).read()[0])
    assert sorted((group.metric, tuple(group.rows)) for group in groups) == [
        ("fd_pixels", ("ddim eta=0",)),
        (METRICS[0], ("nll fixedsmall", "nll fixedlarge", "nll learned")),
    ]
    (written,) = (tmp_path / "tables").glob("*nll*.md")
    before = written.read_text(encoding="utf-8")
    assert "draws from exact-gaussian" in before
    assert main(["run", "--samplers", "ddim", *common]) == 0
    assert written.read_text(encoding="utf-8") == before
    for verb in (["table"], ["plot"], ["status"], ["show", "nll learned"]):
        assert main([*verb, "--results", str(tmp_path)]) == 0, verb
    assert "nll_decoder_bits_per_dim" in capsys.readouterr().out


def test_command_prints_the_table_and_then_nothing_is_left_to_do(tmp_path, capsys):
    command = ["nll", "--model", "exact-mixture", "--n", "20", "--steps", "3,6", "--results", str(tmp_path)]
    assert main(command) == 0
    out = capsys.readouterr()
    for text in ("nll fixedsmall", "S=3", "S=6", "prior", "decoder", "draws from exact-mixture"):
        assert text in out.out
    assert "network calls to make" in out.err
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 6
    for row in rows:
        assert sum(term["bits_per_dim"] for term in row["terms"]) == pytest.approx(row["score"], rel=1e-9)
        assert row["terms"][0]["t"] is None
    assert main(command) == 0
    out = capsys.readouterr()
    assert "6 trials are there already" in out.err
    assert "network calls" not in out.err


MODELS = """
import torch
from bench import NoiseSchedule, Prediction

class Model:
    schedule, shape, variance = NoiseSchedule.linear(20), (1, 12, 12), "fixed"
    def __call__(self, x, t):
        return Prediction(0.9 * x)

class Broken(Model):
    def __call__(self, x, t):
        if int(t[0]) < 10:
            raise RuntimeError("out of order")
        return Prediction(x)

class NaN(Model):
    def __call__(self, x, t):
        return Prediction(x * float("nan"))
"""


@pytest.fixture
def models(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MODELS)
    return path


def test_model_without_variance_is_evaluated_with_the_fixed_ones(models, tmp_path, capsys):
    command = [
        "nll",
        "--model",
        f"{models}:Model",
        "--data",
        "digits",
        "--n",
        "5",
        "--results",
        str(tmp_path),
    ]
    assert main(command) == 0
    assert set(load_results(tmp_path).label) == {"nll fixedsmall", "nll fixedlarge"}
    assert set(load_results(tmp_path).steps) == {20}
    assert main([*command, "--variance", "learned"]) == 0
    assert "skipped: nll learned at S=20: the model predicts no variance" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "stage", "message"), [("Broken", "after t=10", "out of order"), ("NaN", "bound", "not finite")]
)
def test_model_that_fails_leaves_failed_records(models, tmp_path, capsys, name, stage, message):
    command = [
        "nll",
        "--model",
        f"{models}:{name}",
        "--data",
        "digits",
        "--n",
        "5",
        "--results",
        str(tmp_path),
    ]
    assert main(command) == 1
    err = capsys.readouterr().err
    assert f"failed: nll fixedlarge at S=20, {stage}: " in err
    assert message in err
    records, _ = Store(tmp_path).read()
    assert [record.status for record in records] == ["failed"] * 2
    assert main(command) == 1  # a failure satisfies nobody


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--variance", "fixedsmal"], "did you mean fixedsmall"),
        (["--steps", "2000"], "from 1 to T=1000, got 2000"),
        (["--spacing", "opena"], "did you mean openai"),
        (["--data", "digits"], "images of digits are (1, 12, 12) and the model's (1, 8, 8)"),
        (["--n", "1"], "--n must be at least 2"),
        (["--batch", "0"], "--batch must be at least 1"),
        (["--seed", "-1"], "--seed must not be negative"),
    ],
)
def test_impossible_requests_are_refused_in_a_sentence(options, message, tmp_path, capsys):
    assert main(["nll", "--model", "exact-gaussian", "--results", str(tmp_path), *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_chosen_variances_are_rows_of_the_whole_and_the_exact_one_bounds_best(tmp_path, capsys):
    def bounds(folder, *options):
        asked = ["nll", "--model", "exact-gaussian", "--steps", "2", "--n", "5", "--json", "--results"]
        assert main([*asked, str(tmp_path / folder), *options]) == 0
        return {row["variance"]: row["score"] for row in json.loads(capsys.readouterr().out)}

    whole = bounds("whole")
    assert list(whole) == ["fixedsmall", "fixedlarge", "learned"]
    chosen = bounds("chosen", "--variance", "learned, fixedlarge,learned")
    assert list(chosen) == ["fixedlarge", "learned"]
    assert chosen == {name: whole[name] for name in chosen}
    assert min(whole, key=whole.get) == "learned"  # the law's own variance minimises every term


def test_too_few_images_are_refused(tmp_path, capsys):
    assert main(["nll", "--data", "digits-held-out", "--n", "99999", "--results", str(tmp_path)]) == 2
    assert "digits-held-out has 6,000 images" in capsys.readouterr().err
