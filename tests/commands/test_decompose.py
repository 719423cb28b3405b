"""Where the error is, on a model without error: nothing is the network's, and a limit has no solver error."""

import json

import pandas as pd
import pytest

from bench.commands.main import main


def run(capsys, *arguments):
    status = main([str(argument) for argument in ("decompose", *arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


EXACT = ("--model", "exact-gaussian", "--n", 300, "--limit", 40)


def test_the_parts_of_an_exact_models_score(capsys, tmp_path):
    asked = [*EXACT, "--samplers", "ddim", "ddim:eta=1", "--steps", "5,20", "--results", tmp_path]
    status, out, err = run(capsys, *asked, "--json")
    assert (status, err.count("decompose-exact-gaussian-fd_pixels")) == (0, 4)
    told = json.loads(out)
    rows = {(row["sampler"], row["steps"]): row for row in told["rows"]}
    assert len(rows) == 4
    for row in rows.values():
        assert row["sampling"] + row["network"] + row["solver"] == pytest.approx(row["score"])
        assert row["sampling"] > 4 * row["sampling_se"]  # the bias of 300 images of 64 pixels
    calm, noisy = rows["ddim eta=0", 5], rows["ddim eta=1", 5]
    assert abs(calm["network"]) < 3 * calm["network_se"]
    assert noisy["solver"] > 3 * noisy["solver_se"] > 0
    assert calm["distributions"] < calm["images"]
    assert noisy["images"] is None and noisy["distributions"] > 0
    assert rows["ddim eta=0", 20]["images"] < calm["images"]
    assert {line["sampler"] for line in told["steps"]} == {"ddim eta=0"}  # with noise there is no path
    assert [line["step"] for line in told["steps"]] == [*range(1, 6), *range(1, 21)]

    frame = pd.read_csv(tmp_path / "decompose-exact-gaussian-fd_pixels.csv", float_precision="round_trip")
    assert frame["score"].tolist() == [row["score"] for row in told["rows"]]
    assert (tmp_path / "decompose-exact-gaussian-fd_pixels-S20.png").stat().st_size > 10_000

    again, text, err = run(capsys, *asked)
    assert again == 0
    assert "[1/" not in err  # nothing is drawn twice
    assert "score = sampling + network + solver" in text
    assert "limit: dpmpp-3m S=40 on logsnr; from half as many steps to these its images move by" in text
    assert "exact-gaussian: the error of each step, S=20, spacing uniform" in text


def test_a_sampler_that_is_its_own_limit_has_no_solver_error(capsys, tmp_path):
    asked = [
        "--samplers",
        "dpmpp-3m",
        "--spacing",
        "logsnr",
        "--steps",
        "40",
        "--results",
        tmp_path,
        "--json",
    ]
    status, out, _ = run(capsys, *EXACT, *asked)
    (row,) = json.loads(out)["rows"]
    assert status == 0
    assert (row["solver"], row["solver_se"], row["images"]) == (0, 0, 0)
    assert row["distributions"] == pytest.approx(0, abs=1e-9)


def test_a_trial_that_does_not_fit_is_said_and_costs_no_other(capsys, tmp_path):
    asked = ["--model", "exact-gaussian", "--n", 100, "--limit", 4, "--steps", "3", "--results", tmp_path]
    status, out, err = run(capsys, *asked, "--samplers", "ddpm:variance=learned", "ddim", "--json")
    assert status == 0
    assert [row["sampler"] for row in json.loads(out)["rows"]] in (
        ["ddim eta=0"],
        ["ddpm learned", "ddim eta=0"],
    )
    assert "Traceback" not in err


def test_a_model_file_is_split_by_the_score_for_images_of_its_shape(capsys, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from bench import load_model\n\n\ndef make():\n    return load_model('exact-gaussian').model\n"
    )
    asked = ["--model", f"{tmp_path}/mine.py:make", "--samplers", "ddim", "--steps", "2", "--limit", "4"]
    status, out, err = run(capsys, *asked, "--n", 300, "--results", tmp_path, "--json")
    assert status == 0, err
    told = json.loads(out)
    assert told["metric"] == "fd_digits"  # as for every gray image of at most 28 x 28 pixels
    (row,) = told["rows"]
    assert row["sampling"] + row["network"] + row["solver"] == pytest.approx(row["score"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--metrics", "fd_pixel"], "unknown metric"),
        (["--metrics", "sliced_wasserstein_pixels"], "is no Frechet distance"),
        (["--metrics", "fd_pixels,fd_digits"], "give --metrics one name"),
        (["--n", "60"], "fd_pixels has 64 features, and of 60 images no bias can be corrected: give --n 70"),
        (["--limit", "2"], "--limit must be at least 4 steps, got 2"),
        (["--solver", "ddim:eta=1"], "--solver ddim eta=1 draws noise"),
        (["--samplers", "dimm"], "unknown sampler 'dimm'"),
    ],
)
def test_what_cannot_be_is_one_sentence_before_anything_is_drawn(capsys, tmp_path, arguments, says):
    status, out, err = run(capsys, "--model", "exact-gaussian", "--results", tmp_path, *arguments)
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("records/*"))
