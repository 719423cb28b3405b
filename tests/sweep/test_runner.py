"""The sweep: resume, kill, stale records, plugins that misbehave; all on a closed-form model."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.commands import bench
from support.sweeps import Silent

from bench import NoiseMoments, get_sampler, load_model, load_results, make_grid
from bench.device.clock import Clock
from bench.diffusion.calls import count_calls
from bench.plugins.loading import registry
from bench.records.provenance import has_changes
from bench.records.store import Store
from bench.stats.comparison import compare
from bench.stats.score import Score
from bench.sweep.request import Sweep
from bench.sweep.runner import Runner
from bench.sweep.worker import worker
from models.exact import ExactGaussian

MODEL = "exact-gaussian"


def sweep(**changes):
    samplers = tuple(map(get_sampler, changes.pop("samplers", ("ddim", "ddpm:variance=learned"))))
    return Sweep(**{"model": MODEL, "samplers": samplers, "steps": (5, 10), "n": 60, "batch": 20, **changes})


def run(folder, **changes):
    runner, observer = Runner(sweep(**changes), Store(folder)), Silent()
    records = runner.run(runner.plan(), observer)
    return records, observer


def scores(records):
    return {(r.trial.sampler, r.trial.steps): r.scores["fd_pixels"] for r in records}


def test_a_sweep_gives_a_row_a_trial_and_the_frame_its_columns(tmp_path):
    records, observer = run(tmp_path)
    table = load_results(tmp_path)
    assert len(records) == len(table) == 4
    assert observer.samples == 4 * 60
    row = table[(table.label == "ddim eta=0") & (table.steps == 10)].iloc[0]
    assert (row.network_calls, row.distinct_levels, row.status, row.n) == (10, 10, "done", 60)
    assert row.score == pytest.approx(scores(records)["ddim:eta=0,clip=none", 10].value)
    assert row.metric == "fd_pixels"
    assert row.sampling_seconds >= row.model_seconds > 0
    assert row.sampler_seconds == pytest.approx(row.sampling_seconds - row.model_seconds)
    assert row.images_per_second == pytest.approx(60 / row.sampling_seconds)
    expected = {
        "weights",
        "reference",
        "feature_space",
        "commit",
        "dirty",
        "peak_bytes",
        "version_torch",
        "eta",
    }
    assert expected | {"clip", "variance", "key"} <= set(table.columns)


def test_a_second_identical_run_computes_nothing(tmp_path):
    first, _ = run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    second, observer = run(tmp_path)
    assert observer.records == []
    assert observer.samples == 0
    assert scores(first) == scores(second)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}


def test_a_parameter_without_a_bound_is_recorded_and_found_again(tmp_path):
    run(tmp_path, samplers=["sa-solver"], steps=(5,))
    again, observer = run(tmp_path, samplers=["sa-solver:tau-max=inf"], steps=(5,))
    assert observer.samples == 0
    assert len(again) == 1
    assert load_results(tmp_path).tau_max.tolist() == ["inf"]


def test_scores_do_not_depend_on_what_else_is_in_the_sweep(tmp_path):
    alone, _ = run(tmp_path / "a", samplers=("ddim",), steps=(10,))
    beside, _ = run(tmp_path / "b")
    key = ("ddim:eta=0,clip=none", 10)
    assert scores(alone)[key] == scores(beside)[key]


def test_two_processes_give_the_scores_of_one(tmp_path):
    one, _ = run(tmp_path / "one", steps=(5,))
    two, _ = run(tmp_path / "two", steps=(5,), executor="processes", devices=("cpu", "cpu"))
    for key, score in scores(one).items():
        assert scores(two)[key].value == pytest.approx(score.value, rel=1e-9)


def test_the_batch_size_changes_no_image(tmp_path):
    small, _ = run(tmp_path / "a", batch=7)
    large, _ = run(tmp_path / "b", batch=60)
    for key, score in scores(small).items():
        assert scores(large)[key].value == pytest.approx(score.value, rel=1e-4)


def test_a_changed_source_is_named_and_recomputed(tmp_path):
    run(tmp_path)
    path = next(p for p in (tmp_path / "records").glob("*.json") if "ddim" in p.name and "S5" in p.name)
    record = json.loads(path.read_text())
    record["provenance"]["code of the sampler"] = "another"
    record["provenance"]["weights"] = "others"
    path.write_text(json.dumps(record))
    runner = Runner(sweep(), Store(tmp_path))
    plan = runner.plan()
    assert [set(stale.fields) for stale in plan.stale] == [{"code of the sampler", "weights"}]
    assert len(plan.pending) == 1
    records = runner.run(plan, Silent())
    assert len(records) == len(load_results(tmp_path)) == 4
    assert Runner(sweep(), Store(tmp_path)).plan().pending == []


def test_another_file_under_a_parameter_s_name_makes_its_records_stale(tmp_path):
    model = load_model(MODEL).model
    grid = make_grid(model.schedule, 5)
    values = {float(t): 0.5 for t in grid.timesteps}
    file = tmp_path / "moments.json"
    file.write_text(NoiseMoments(MODEL, "w", 10, 0, values).text())
    one = {"samplers": (f"analytic-ddpm:moments={file}", "ddim"), "steps": (5,)}
    first, _ = run(tmp_path / "r", **one)
    assert {record.status for record in first} == {"done"}
    assert Runner(sweep(**one), Store(tmp_path / "r")).plan().pending == []
    file.write_text(NoiseMoments(MODEL, "w", 10, 0, dict.fromkeys(values, 0.6)).text())
    plan = Runner(sweep(**one), Store(tmp_path / "r")).plan()
    assert [stale.fields for stale in plan.stale] == [["file of moments"]]


@pytest.fixture
def set_card(monkeypatch):
    """Put a card in the place of the model's; no worker of another test, nor for one, keeps its images."""
    worker.cache_clear()
    yield lambda card: monkeypatch.setitem(registry().models.entries, MODEL, card)
    worker.cache_clear()


def with_images(folder, train, held_out):
    """Write two image sets; return the file of the second and the model's card with both."""
    files = folder / "train.npz", folder / "held-out.npz"
    for file, images in zip(files, (train, held_out), strict=True):
        np.savez(file, images=images)
    data, other = map(str, files)
    return files[1], replace(registry().models.entries[MODEL], data=data, held_out=other)


def test_a_byte_of_the_held_out_images_makes_the_records_that_rest_on_them_stale(tmp_path, set_card):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 8, 8), dtype=np.uint8)
    held_out, card = with_images(tmp_path, *pixels)
    set_card(card)
    one = {"samplers": ("ddim",), "steps": (5,)}
    copying = {**one, "metrics": ("fd_pixels", "copying_pixels")}
    run(tmp_path / "r", **copying)
    run(tmp_path / "plain", **one)
    assert Runner(sweep(**copying), Store(tmp_path / "r")).plan().pending == []

    pixels[1, 7, 3, 3] ^= 1
    np.savez(held_out, images=pixels[1])
    plan = Runner(sweep(**copying), Store(tmp_path / "r")).plan()
    assert [stale.fields for stale in plan.stale] == [["held-out images of copying_pixels"]]
    assert len(plan.pending) == 1
    again, observer = run(tmp_path / "r", **copying)
    assert observer.samples == 60
    fresh, _ = run(tmp_path / "fresh", **copying)
    assert again[0].scores == fresh[0].scores
    assert Runner(sweep(**one), Store(tmp_path / "plain")).plan().stale == []


def test_real_images_are_scored_again_when_one_of_them_changes_and_not_where_there_are_none(
    tmp_path, monkeypatch, set_card
):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 200, 8, 8), dtype=np.uint8)
    held_out, card = with_images(tmp_path, *pixels)
    set_card(card)

    def floor():
        worker.cache_clear()  # it would keep the images that were there first
        return Runner(sweep(samplers=("ddim",)), Store(tmp_path / "r")).floor()

    first = floor()
    assert first.grid.folds == 3 and floor() == first
    pixels[1, 150, 3, 3] ^= 255  # in the third set
    np.savez(held_out, images=pixels[1])
    again = floor()
    assert again.scores["fd_pixels"].value != first.scores["fd_pixels"].value
    monkeypatch.setenv("SAMPLER_BENCH_DATA", str(tmp_path))
    set_card(replace(card, held_out="cifar10-test"))
    assert floor() is None


def test_a_truncated_record_is_named_and_recomputed(tmp_path):
    run(tmp_path)
    path = sorted((tmp_path / "records").glob("*.json"))[0]
    whole = json.loads(path.read_text())
    path.write_text(path.read_text()[:100])
    plan = Runner(sweep(), Store(tmp_path)).plan()
    assert [damage.path for damage in plan.unreadable] == [path]
    assert "truncated" in str(plan.unreadable[0])
    run(tmp_path)
    assert json.loads(path.read_text())["scores"] == whole["scores"]


def test_blocks_of_a_stopped_run_are_used_and_the_scores_are_the_same_bits(tmp_path):
    whole, _ = run(tmp_path / "whole", n=100, batch=10)

    class Stop(Silent):
        def advanced(self, trial, samples):
            super().advanced(trial, samples)
            if self.samples == 130:
                raise KeyboardInterrupt

    runner = Runner(sweep(n=100, batch=10), Store(tmp_path / "stopped"))
    with pytest.raises(KeyboardInterrupt):
        runner.run(runner.plan(), Stop())
    assert len(list((tmp_path / "stopped" / "blocks").rglob("*.npz"))) == 13
    resumed, observer = run(tmp_path / "stopped", n=100, batch=10)
    assert observer.samples == 4 * 100
    assert scores(resumed) == scores(whole)
    assert not (tmp_path / "stopped" / "blocks").exists()


def test_compacted_blocks_give_the_same_bits(tmp_path, monkeypatch):
    plain, _ = run(tmp_path / "plain", n=100, batch=10)
    monkeypatch.setattr("bench.sweep.collect.COMPACT_EVERY", 3)
    compacted, _ = run(tmp_path / "compacted", n=100, batch=10)
    assert scores(compacted) == scores(plain)


KILLED = """
import sys
sys.argv = ["bench", "run", "--model", "exact-mixture", "--samplers", "ddim", "ddim:eta=1",
            "--steps", "20,40", "--n", "400", "--batch", "20", "--results", sys.argv[1]]
from bench.commands.main import main
sys.exit(main())
"""


def _start(folder):
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_kill_dash_nine_loses_nothing_and_counts_nothing_twice(tmp_path):
    """Killed again and again, wherever it is; the end is the uninterrupted run's, to the last bit."""
    whole = _start(tmp_path / "whole")
    assert whole.wait(120) == 0, whole.stderr.read()
    kills = 0
    for attempt in range(40):
        process = _start(tmp_path / "killed")
        # Wait for a new block to appear, then kill: every attempt gets further, and dies in another place.
        blocks = lambda: len(list((tmp_path / "killed").rglob("*.npz")))  # noqa: E731
        done = lambda: len(list((tmp_path / "killed").rglob("*.json")))  # noqa: E731
        before, deadline = (blocks(), done()), time.monotonic() + 60
        while process.poll() is None and (blocks(), done()) == before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.01 * (attempt % 4))
        if process.poll() is None and attempt < 6:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
            process.wait(30)
            process.stdout.close()
            process.stderr.close()
            continue
        process.communicate(timeout=120)
        assert process.returncode == 0
        break
    assert kills >= 1
    one, other = (load_results(tmp_path / name).set_index("key").sort_index() for name in ("whole", "killed"))
    assert list(one.index) == list(other.index)
    assert other.index.is_unique
    for column in ("score", "score_se", "score_debiased", "network_calls"):
        assert np.array_equal(one[column].to_numpy(), other[column].to_numpy(), equal_nan=True)


def sweep_broken(folder, steps, *samplers):
    """Sweep by the command line with the plugin ``broken.py`` of a folder."""
    options = ["--n", "40", "--steps", steps, "--plugin", folder / "broken.py", "--results", folder / "r"]
    return bench("run", "--model", MODEL, *options, "--samplers", *samplers)


def test_a_failed_trial_costs_its_own_row_and_is_tried_again(tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text(BROKEN)
    out = sweep_broken(
        tmp_path, "5", "ddim", "raises-at-3", "returns-nan", "wrong-shape", "yields-nothing", "not-a-tensor"
    )
    assert out.returncode == 1
    table = load_results(tmp_path / "r")
    table = table[table["sampler"] != "real images"].set_index("sampler")
    assert table.loc["ddim"].status == "done"
    assert (table.drop("ddim").status == "failed").all()
    assert "boom at three" in table.loc["raises-at-3"].message
    assert "not finite" in table.loc["returns-nan"].message
    assert "(40, 1, 2, 2) at step 1" in table.loc["wrong-shape"].message
    assert "yielded nothing" in table.loc["yields-nothing"].message
    assert "yielded str at step 1" in table.loc["not-a-tensor"].message
    record = json.loads(next((tmp_path / "r" / "records").glob("*raises-at-3*.json")).read_text())
    assert record["failure"]["stage"] == "step 3"
    assert "ValueError: boom at three" in record["failure"]["traceback"]
    assert "5 of 7 trials failed" in out.stderr
    for name in ("raises-at-3", "returns-nan", "wrong-shape", "yields-nothing", "not-a-tensor"):
        assert f"failed: {name}" in out.stderr

    plugin.write_text(BROKEN.replace("if step.index == 2:", "if False:"))
    again = sweep_broken(tmp_path, "5", "ddim", "raises-at-3")
    assert again.returncode == 0, again.stderr
    assert "1 of 2 trials are there already" in again.stderr


def test_strict_stops_at_the_first_failure(tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text(BROKEN)
    out = sweep_broken(tmp_path, "5,6", "raises-at-3", "ddim", "--strict")
    assert out.returncode == 1
    assert out.stderr.rstrip().splitlines()[-1].startswith("error: raises-at-3 at S=5: ValueError: boom")
    assert len(load_results(tmp_path / "r")) == 1


BROKEN = """
import torch
from bench import hookimpl, sampler

def steps(model, x, grid):
    for step in grid:
        model(x, step.times(x))
        yield step, x

@sampler
def raises_at_3(model, x, grid, noise):
    for step, x in steps(model, x, grid):
        if step.index == 2:
            raise ValueError("boom at three")
        yield x

@sampler
def returns_nan(model, x, grid, noise):
    for step, x in steps(model, x, grid):
        yield x * float("nan")

@sampler
def wrong_shape(model, x, grid, noise):
    for step, x in steps(model, x, grid):
        yield x[:, :, :2, :2]

@sampler
def yields_nothing(model, x, grid, noise):
    return
    yield

@sampler
def not_a_tensor(model, x, grid, noise):
    yield "x"

@hookimpl
def bench_samplers():
    return [raises_at_3, returns_nan, wrong_shape, yields_nothing, not_a_tensor]
"""


def test_a_model_without_variance_has_its_learned_rows_skipped_with_the_reason(tmp_path):
    model = tmp_path / "model.py"
    model.write_text(FIXED_MODEL)
    options = ["--n", "40", "--steps", "5", "--results", tmp_path / "r", "--reference", "digits-held-out"]
    out = bench("run", "--model", f"{model}:make", "--samplers", "paper", *options)
    assert out.returncode == 0, out.stderr
    table = load_results(tmp_path / "r")
    learned = table[table.variance == "learned"].iloc[0]
    assert (learned.status, learned.message) == ("skipped", "the model predicts no variance")
    assert "skipped: ddpm learned at S=5" in out.stdout
    assert ((table.status == "done") & (table.kind == "samples")).sum() == 6


FIXED_MODEL = """
import torch
from bench import NoiseSchedule, Prediction

class Shrink:
    schedule, shape, variance = NoiseSchedule.linear(), (1, 12, 12), "fixed"

    def __call__(self, x, t):
        return Prediction(x)

def make():
    return Shrink()
"""


def test_calls_are_counted_not_computed():
    from bench import make_grid, sampler

    @sampler
    def heun_like(model, x, grid, noise):
        for step in grid:
            model(x, step.times(x))
            if not step.last:
                model(x, step.times(x))
            yield x

    model = ExactGaussian(torch.zeros(1, 2, 2), torch.eye(4))
    assert count_calls(model, heun_like, make_grid(model.schedule, 10)) == 19
    assert count_calls(model, get_sampler("ddim"), make_grid(model.schedule, 30)) == 31


def test_reference_runs_of_the_project_satisfy_nobody_s_resume(tmp_path):
    run(tmp_path / "reference" / "mine")
    assert Store(tmp_path).read() == ([], [])


def test_scores_survive_the_round_trip_through_json(tmp_path):
    records, _ = run(tmp_path)
    read = {record.key: record for record in Store(tmp_path).read()[0]}
    for record in records:
        assert read[record.key].scores == record.scores
        assert isinstance(record.scores["fd_pixels"], Score)


def test_kept_features_give_the_recorded_moments(tmp_path):
    records, _ = run(tmp_path, samplers=("ddim",), steps=(5,), keep_features=True)
    (path,) = (tmp_path / "features").iterdir()
    features = np.load(path)
    assert features.shape == (60, 64)
    previews = Store(tmp_path).previews(records[0])
    assert np.allclose(features[:16], previews.flatten(1).numpy() / 255)
    plain, _ = run(tmp_path / "plain", samplers=("ddim",), steps=(5,))
    assert not (tmp_path / "plain" / "features").exists()
    assert scores(plain) == scores(records)


def test_features_that_were_not_kept_are_drawn_when_they_are_asked_for(tmp_path):
    run(tmp_path, samplers=("ddim",), steps=(5,))
    runner = Runner(sweep(samplers=("ddim",), steps=(5,), keep_features=True), Store(tmp_path))
    plan = runner.plan()
    assert [(lack.record.title, lack.fields) for lack in plan.incomplete] == [
        ("ddim eta=0 at S=5", ["features"])
    ]
    assert len(plan.pending) == 1
    runner.run(plan, Silent())
    _, observer = run(tmp_path, samplers=("ddim",), steps=(5,), keep_features=True)
    assert observer.samples == 0
    _, observer = run(tmp_path, samplers=("ddim",), steps=(5,))
    assert observer.samples == 0


@pytest.mark.parametrize("kept", [False, True])
def test_blocks_with_and_without_features_are_not_mixed(kept, tmp_path):
    """A run is stopped after a block and goes on with the other choice."""
    asked = {"samplers": ("ddim",), "steps": (5,)}

    class Stop(Silent):
        def advanced(self, trial, samples):
            raise KeyboardInterrupt

    runner = Runner(sweep(**asked, keep_features=kept), Store(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        runner.run(runner.plan(), Stop())
    assert len(list(tmp_path.rglob("*.npz"))) == 1
    records, _ = run(tmp_path, **asked, keep_features=not kept)
    assert [record.status for record in records] == ["done"]
    assert (tmp_path / "features").exists() == (not kept)
    assert scores(records) == scores(run(tmp_path / "whole", **asked)[0])


def test_influence_values_give_the_error_of_a_score_and_of_a_difference(tmp_path):
    asked = {"samplers": ("ddim", "ddim:eta=1"), "steps": (10,), "n": 400, "batch": 400}
    records, _ = run(tmp_path, **asked, keep_features=True)
    store, (first, second) = Store(tmp_path), records
    values = [store.influence(record, "fd_pixels") for record in records]
    for record, of_score in zip(records, values, strict=True):
        score = record.scores["fd_pixels"]
        assert of_score.shape == (400,)
        assert abs(of_score.mean()) < 0.02 * of_score.std()  # zero but for n - 1 in the covariance
        assert score.influence_se == pytest.approx(of_score.std(ddof=1) / 20)
        assert score.influence_se == pytest.approx(score.se, rel=0.5)
    paired = (values[1] - values[0]).std(ddof=1) / 20
    assert paired == pytest.approx(compare(second.scores["fd_pixels"], first.scores["fd_pixels"]).se, rel=0.5)
    asked = ["compare", "ddim:eta=0@10", "ddim:eta=1@10", "--results", tmp_path]
    assert json.loads(bench(*asked, "--json").stdout)[1]["influence_se"] == pytest.approx(paired)
    assert f"difference's error is {paired:.2g}" in bench(*asked).stdout
    assert "by influence values" in bench("show", "ddim:eta=0@10", "--results", tmp_path).stdout
    assert load_results(tmp_path).fd_pixels_influence_se.notna().all()


def test_influence_values_of_other_samples_are_not_left_behind(tmp_path):
    asked = {"samplers": ("ddim",), "steps": (10,), "n": 200, "batch": 200}
    (record,), _ = run(tmp_path, **asked, keep_features=True)
    path = next((tmp_path / "records").glob("*.json"))
    changed = json.loads(path.read_text())
    changed["provenance"]["code that draws"] = "of another day"
    path.write_text(json.dumps(changed))
    (again,), _ = run(tmp_path, **asked)
    assert again.key == record.key
    assert Store(tmp_path).influence(again, "fd_pixels") is None
    assert not list((tmp_path / "features").iterdir())


def test_too_few_samples_have_no_influence_values(tmp_path):
    (record,), _ = run(tmp_path, samplers=("ddim",), steps=(5,), keep_features=True)  # 60 samples, 64 pixels
    assert "rank-deficient" in record.scores["fd_pixels"].flags
    assert np.isnan(record.scores["fd_pixels"].influence_se)
    assert Store(tmp_path).influence(record, "fd_pixels") is None


def test_previews_are_the_first_images_losslessly(tmp_path):
    records, _ = run(tmp_path, samplers=("ddim",), steps=(5,))
    store = Store(tmp_path)
    previews = store.previews(records[0])
    assert previews.shape == (16, 1, 8, 8)
    from bench import make_grid, normal_noise, sample, to_uint8
    from bench.plugins.lookup import load_model

    model = load_model(MODEL).model
    x = normal_noise(0, range(20), 0, (1, 8, 8))
    x0 = sample(model, get_sampler("ddim"), make_grid(model.schedule, 5), x, torch.zeros_like)
    assert torch.equal(previews, to_uint8(x0)[:16])


def test_no_temporary_file_is_left(tmp_path):
    run(tmp_path)
    assert not list(Path(tmp_path).rglob("*.tmp"))


def test_an_interrupt_waits_until_a_block_is_whole(tmp_path, monkeypatch):
    runner, observer = Runner(sweep(steps=(5,), samplers=("ddim",)), Store(tmp_path)), Silent()
    savez = np.savez

    def interrupted(file, **arrays):
        os.kill(os.getpid(), signal.SIGINT)
        savez(file, **arrays)

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.run(runner.plan(), observer)
    (block,) = (tmp_path / "blocks").rglob("*.npz")
    with np.load(block) as arrays:
        assert "cost" in arrays
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_results_are_no_change_of_the_checkout_and_code_is(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "results").mkdir()
    code, record = tmp_path / "code.py", tmp_path / "results" / "record.json"
    code.write_text("1")
    record.write_text("1")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "both")
    assert not has_changes(tmp_path)
    record.unlink()
    assert not has_changes(tmp_path)
    code.write_text("2")
    assert has_changes(tmp_path)


def test_the_clock_waits_for_devices_that_are_only_given_work(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append(time.perf_counter()))
    clock = Clock(torch.device("mps"))
    with clock.running():
        began = time.perf_counter()
    assert len(waited) == 2
    assert waited[0] < began < waited[1]
    with Clock(torch.device("cpu")).running():
        pass
    assert len(waited) == 2
