"""Trackers: what they keep is what the records hold, once each; one that fails harms nothing."""

import importlib.util
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from support.reports import record

from bench import load_results
from bench.catalog import Origin
from bench.commands.main import main
from bench.plugins.loading import Registry, registry
from bench.records.store import Store
from bench.sweep.observers.csv_table import CsvTable
from bench.sweep.observers.told import Told

ROOT = Path(__file__).parents[2]
RUN = ("run", "--model", "exact-gaussian", "--samplers", "ddim:eta=0", "--steps", "2,5", "--n", "20")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A run that is there already: no test draws it again."""
    folder = tmp_path_factory.mktemp("observers") / "r"
    assert main([*RUN, "--results", str(folder)]) == 0
    return folder


def run(results, *more):
    return main([*RUN, "--results", str(results), *more])


def records(results):
    return Store(results).read()[0]


def test_what_is_told_is_what_the_record_holds(results):
    for one in records(results):
        told = Told.of(one)
        score = one.scores["fd_pixels"]
        assert told.numbers["fd_pixels"] == score.value and told.numbers["fd_pixels_se"] == score.se
        assert told.texts["key"] == one.key and told.texts["status"] == "done"
        if one.kind == "samples":
            assert told.numbers["sampling_seconds"] == one.cost.sampling_seconds
            assert told.numbers["network_calls"] == one.trial.steps
            assert (told.parameters["eta"], told.parameters["steps"]) == (0.0, one.trial.steps)
            assert told.parameters["sampler"] == "ddim"


def test_what_is_no_number_is_not_told():
    made = record("ddim:eta=0", 10, 2.0, debiased=math.nan)
    assert "fid_debiased" not in Told.of(made).numbers and Told.of(made).numbers["fid"] == 2.0
    failed = Told.of(record("ddim:eta=0", 10, status="failed", message="it broke"))
    assert failed.texts["message"] == "it broke" and "fid" not in failed.numbers


def test_csv_is_the_frame_of_the_results(results, tmp_path):
    path = tmp_path / "sub" / "trials.csv"
    for _ in range(2):  # told again, a trial replaces its row
        assert run(results, "--log", f"csv:{path}") == 0
        rows = pd.read_csv(path).set_index("key").sort_index()
        expected = load_results(results).set_index("key").sort_index()
        assert list(rows.index) == list(expected.index) and len(rows) == 3
        for name in ("fd_pixels", "fd_pixels_se", "sampling_seconds", "network_calls"):
            assert rows[name].to_numpy() == pytest.approx(expected[name].to_numpy(), rel=1e-12, nan_ok=True)
        assert list(rows["label"]) == list(expected["label"])


def test_csv_keeps_the_rows_of_other_trials_and_gains_columns(tmp_path):
    first, second = record("ddim:eta=0", 10, 2.0), record("sigma-hat", 20, 3.0, metric="kid")
    CsvTable(tmp_path / "t.csv").ended(first)
    CsvTable(tmp_path / "t.csv").ended(second)
    rows = pd.read_csv(tmp_path / "t.csv").set_index("key")
    assert rows.loc[first.key, "fid"] == 2.0 and rows.loc[second.key, "kid"] == 3.0
    assert math.isnan(rows.loc[first.key, "kid"])


def test_csv_writes_over_no_other_file(results, tmp_path, capsys):
    for content in ("", "a,b\n1,2\n", '"'):
        (tmp_path / "thesis.csv").write_text(content)
        assert run(results, "--log", f"csv:{tmp_path / 'thesis.csv'}") == 2
        assert "is no table of trials: give --log csv:FILE another file" in capsys.readouterr().err
        assert (tmp_path / "thesis.csv").read_text() == content


def test_tensorboard_s_own_reader_finds_every_trial_once(results, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    for _ in range(2):
        assert run(results, "--log", f"tensorboard:{tmp_path}") == 0
    made = {one.name: one for one in records(results)}
    assert {path.name for path in tmp_path.iterdir()} == set(made)
    for name, one in made.items():
        read = EventAccumulator(str(tmp_path / name))
        read.Reload()
        scalars = {tag: read.Scalars(tag) for tag in read.Tags()["scalars"]}
        told = Told.of(one)
        assert set(scalars) == set(told.numbers)
        for tag, (event,) in scalars.items():
            assert event.step == one.trial.steps
            assert event.value == pytest.approx(told.numbers[tag], rel=1e-6)
        content = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
        assert start.hparams["steps"].number_value == one.trial.steps
        assert start.hparams["model"].string_value == "exact-gaussian"


def test_mlflow_s_own_reader_finds_every_trial_once(results, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "true")
    from mlflow.tracking import MlflowClient

    for _ in range(2):
        assert run(results, "--log", "mlflow:mine") == 0
    client = MlflowClient(tracking_uri=(results / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("mine").experiment_id
    runs = {one.data.tags["key"]: one for one in client.search_runs([experiment])}
    assert len(client.search_runs([experiment])) == 3
    for one in records(results):
        told, found = Told.of(one), runs[one.key]
        assert found.data.metrics == pytest.approx(dict(told.numbers))
        assert found.data.params == {name: str(value) for name, value in told.parameters.items()}
        assert (found.info.status, found.info.run_name) == ("FINISHED", one.title)


def test_wandb_keeps_its_runs_offline(results, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert run(results, "--log", "wandb:mine") == 0
    kept = {path.stem.removeprefix("run-") for path in results.glob("wandb/offline-run-*/run-*.wandb")}
    assert kept == {one.key for one in records(results)}
    assert wandb.run is None


def test_wandb_is_told_each_trial_by_its_key(results, monkeypatch):
    """Of the package alone what is called is known here; the test above has the package itself."""
    calls = []

    def init(**given):
        made = {"init": given, "log": {}, "summary": {}}
        calls.append(made)
        return SimpleNamespace(
            log=made["log"].update, summary=made["summary"], finish=lambda **how: made.update(finish=how)
        )

    fake = SimpleNamespace(init=init, Settings=dict, __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "wandb", fake)
    assert run(results, "--log", "wandb") == 0
    assert {made["init"]["id"] for made in calls} == {one.key for one in records(results)}
    for made in calls:
        assert made["init"]["project"] == "sampler-bench" and made["finish"] == {"exit_code": 0}
        assert made["summary"]["fd_pixels"] == made["log"]["fd_pixels"]


@pytest.mark.parametrize(
    ("name", "package", "install"),
    [("wandb", "wandb", "wandb"), ("mlflow", "mlflow", "mlflow-skinny"), ("tensorboard",) * 3],
)
def test_a_package_that_is_missing_is_named_before_anything_is_drawn(
    name, package, install, tmp_path, monkeypatch, capsys
):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda one: None if one == package else there(one))
    assert run(tmp_path / "r", "--log", name) == 2
    sentence = f"--log {name} needs a package that is not there: `pip install {install}`"
    assert capsys.readouterr().err.endswith(f"error: {sentence}\n")
    assert records(tmp_path / "r") == []


class Kept:
    """An observer that keeps what it is told, and fails where it is asked to."""

    def __init__(self, fails=""):
        self.fails, self.keys, self.closed = fails, [], 0

    def ended(self, made):
        self.keys.append(made.key)
        if self.fails == "ended":
            raise RuntimeError("the server is gone")

    def close(self):
        self.closed += 1
        if self.fails == "close":
            raise SystemExit(3)


@pytest.fixture
def plugged(monkeypatch):
    """Register an observer for the time of a test."""

    def plug(name, make):
        monkeypatch.setitem(registry().observers.entries, name, make)
        monkeypatch.setitem(registry().observers.origins, name, Origin("tests", ""))

    return plug


@pytest.mark.parametrize(
    ("fails", "told"),
    [("ended", "RuntimeError: the server is gone"), ("close", "it called sys.exit(3)")],
)
def test_an_observer_that_fails_costs_its_own_log_alone(fails, told, plugged, results, capsys):
    bad, good = Kept(fails), Kept()
    plugged("bad", lambda where, folder: bad)
    plugged("good", lambda where, folder: good)
    assert run(results, "--log", "bad", "--log", "good") == 1
    out, err = capsys.readouterr()
    assert f"warning: --log bad failed and is told nothing more: {told}\n" in err
    assert "3 records in " in out
    assert len(bad.keys) == (1 if fails == "ended" else 3)
    assert sorted(good.keys) == sorted(one.key for one in records(results)) and good.closed == 1


def test_an_observer_is_told_of_trials_as_they_end_and_of_the_final_round_alone(plugged, tmp_path):
    seen = Kept()
    plugged("seen", lambda where, folder: seen)
    asked = ["run", "--model", "exact-gaussian", "--samplers", "ddim:eta=0", "ddim:eta=1", "--steps", "2"]
    asked += ["--n", "500", "--until-tie", "0.5", "--results", str(tmp_path / "r"), "--log", "seen"]
    assert main(asked) == 0
    final = [one.key for one in records(tmp_path / "r") if not one.continued]
    assert sorted(seen.keys) == sorted(final)


def test_an_observer_gets_what_follows_the_colon_and_the_folder(plugged, results):
    given = []
    plugged("mine", lambda where, folder: given.append((where, folder)) or Kept())
    assert run(results, "--log", "mine:http://host:80/x", "--log", "mine") == 0
    assert given == [("http://host:80/x", results), ("", results)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--log", "tensorbord"], "unknown observer 'tensorbord'; did you mean tensorboard?"),
        (["--log", "csv:"], "--log csv: is given nothing after the colon"),
        (["--log", "csv", "--log", "csv"], "--log csv is given 2 times; give it once"),
        (["--log", "tensorbord", "--dry-run"], "unknown observer 'tensorbord'"),
    ],
)
def test_bad_input_is_a_sentence(arguments, says, tmp_path, capsys):
    assert run(tmp_path / "r", *arguments) == 2
    assert says in capsys.readouterr().err


def test_an_observer_that_cannot_be_made_is_told_in_a_sentence(plugged, tmp_path, capsys):
    def make(where, folder):
        raise ConnectionError("no such host")

    plugged("far", make)
    assert run(tmp_path / "r", "--log", "far") == 2
    assert "error: --log far cannot be begun: ConnectionError: no such host\n" in capsys.readouterr().err


def test_observers_are_listed(capsys):
    assert main(["list", "observers", "--json"]) == 0
    told = {one["name"]: one["summary"] for one in json.loads(capsys.readouterr().out)["observers"]}
    assert set(told) == {"csv", "tensorboard", "mlflow", "wandb"}
    assert told["csv"] == "One row a trial in a CSV file: csv[:FILE] [RESULTS/trials.csv]."


def test_the_observer_that_the_document_shows_sends_a_line_a_trial(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    (source,) = (b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "def bench_observers" in b)
    (tmp_path / "post.py").write_text(source)
    mine = Registry()
    mine.load_file(tmp_path / "post.py")
    assert mine.failures == []
    sent = []
    monkeypatch.setattr("urllib.request.urlopen", sent.append)
    observer = mine.observers.get("post")("http://localhost/hook", tmp_path)
    observer.ended(record("ddim:eta=0", 10, 2.0, se=0.1))
    observer.close()
    (asked,) = sent
    assert asked.full_url == "http://localhost/hook"
    assert json.loads(asked.data) == {"text": "ddim eta=0 at S=10: fid 2 ± 0.1"}


def test_a_failed_trial_is_told_as_failed(tmp_path):
    made = replace(record("ddim:eta=0", 10, status="failed", message="it broke"))
    CsvTable(tmp_path / "t.csv").ended(made)
    assert list(pd.read_csv(tmp_path / "t.csv").status) == ["failed"]
