"""The verb moments: from a model's data to a file that the analytic samplers read."""

import json

import pytest

from bench import load_model, load_results, make_grid, read_moments
from bench.commands.main import main

MODEL = "exact-gaussian"


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_moments_of_exact_data_are_known_kept_and_sampled_with(capsys, tmp_path):
    file = tmp_path / "moments.json"
    asked = ["moments", "--model", MODEL, "--n", 400, "--out", file]
    status, out, _ = run(capsys, *asked, "--steps", "5")
    assert status == 0
    assert "5 times, 2,000 network evaluations in all" in out
    known = read_moments(file)
    schedule = load_model(MODEL).model.schedule
    assert set(known.values) == {float(step.t) for step in make_grid(schedule, 5)}
    # The share of noise in x_t, by which eps is told from x_t alone: from nearly all of it to hardly any.
    values = [known.values[t] for t in sorted(known.values)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1, abs=0.02)

    status, out, _ = run(capsys, *asked, "--steps", "5,10")
    assert "10 times, 4,000 network evaluations in all" in out
    assert {t: read_moments(file).values[t] for t in known.values} == known.values

    results = tmp_path / "results"
    arguments = ["--samplers", f"analytic-ddpm:moments={file}", "--steps", "5,10,20", "--n", "40"]
    assert run(capsys, "run", "--model", MODEL, *arguments, "--results", results)[0] == 1
    rows = load_results(results).query("kind == 'samples'").set_index("steps")
    assert rows.status.to_dict() == {5: "done", 10: "done", 20: "failed"}
    assert "no moment of exact-gaussian for the time" in rows.loc[20].message


def test_moments_of_another_model_are_kept_from_being_mixed(capsys, tmp_path):
    file = tmp_path / "moments.json"
    assert run(capsys, "moments", "--model", MODEL, "--n", 20, "--steps", 2, "--out", file)[0] == 0
    held = json.loads(file.read_text())
    assert (held["model"], held["images"]) == (MODEL, 20)
    status, _, err = run(capsys, "moments", "--model", "digits", "--steps", 2, "--out", file)
    assert status == 2
    assert "holds moments of exact-gaussian with other weights than digits has" in err
    assert json.loads(file.read_text()) == held
    status, _, err = run(capsys, "moments", "--model", MODEL, "--n", 30, "--steps", 3, "--out", file)
    assert status == 2
    assert "are of 20 images, not 30" in err


def test_moments_need_data_without_labels(capsys, tmp_path):
    asked = ["moments", "--out", tmp_path / "m.json", "--steps", 2]
    status, _, err = run(capsys, *asked, "--model", "digits-conditional")
    assert status == 2
    assert "takes labels, and images without labels do not tell its moments" in err
    status, _, err = run(capsys, *asked, "--n", 0)
    assert (status, "--n must be at least 1" in err) == (2, True)
    status, _, err = run(capsys, "moments", "--out", tmp_path / "none" / "m.json", "--steps", 2, "--n", 5)
    assert status == 1
    assert "cannot write" in err
