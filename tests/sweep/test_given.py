"""Images from anywhere: scored as a run scores its own, as a number in Python and as a row of a table."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import bench
from bench import (
    TrajectoryNoise,
    UsageError,
    get_sampler,
    load_model,
    load_results,
    make_grid,
    sample,
)
from bench.commands.main import main
from bench.records.store import Store
from bench.report.tables.summary import plus_minus
from bench.report.tables.table import tables_of

METRICS = ["fd_digits", "kid_digits", "precision_digits", "fd_pixels"]


@pytest.fixture(scope="module")
def drawn():
    """Samples of the shipped model, as `run` draws them."""
    model = load_model("digits").model
    noise = TrajectoryNoise(0, range(120), model.shape)
    grid = make_grid(model.schedule, 5, "uniform")
    with torch.no_grad():
        return sample(model, get_sampler("ddim"), grid, noise.initial(), noise)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The same by `run`."""
    folder = tmp_path_factory.mktemp("swept")
    options = ["--n", "120", "--steps", "5", "--samplers", "ddim", "--metrics", ",".join(METRICS)]
    assert main(["run", *options, "--results", str(folder)]) == 0
    return folder


def test_samples_score_what_they_score_in_a_run(drawn, swept):
    (record,) = [r for r in Store(swept).read()[0] if r.kind == "samples"]
    found = bench.score(drawn, "digits", METRICS)
    for name in METRICS:
        ours, theirs = found[name], record.scores[name]
        assert ours.value == pytest.approx(theirs.value, rel=1e-6)
        assert ours.se == pytest.approx(theirs.se, rel=1e-5)
        assert ours.reference == theirs.reference
        assert ours.flags == theirs.flags


def test_a_folder_a_file_and_an_array_are_one(tmp_path, drawn):
    pixels = bench.to_uint8(drawn[:30])
    (tmp_path / "png").mkdir()
    for k, image in enumerate(pixels):
        Image.fromarray(image[0].numpy()).save(tmp_path / "png" / f"{k:03}.png")
    np.savez(tmp_path / "a.npz", images=pixels.numpy())
    np.save(tmp_path / "a.npy", pixels.permute(0, 2, 3, 1).numpy())
    files = [str(tmp_path / name) for name in ("png", "a.npz", "a.npy")]
    forms = [drawn[:30], pixels, pixels.numpy(), *files]
    values = {bench.score(form, "digits")["fd_digits"].value for form in forms}
    assert max(values) == pytest.approx(min(values), rel=1e-6)  # convolutions round by the order in memory


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (torch.rand(10, 1, 12, 12), "floats from 0.* to .*: give uint8, or floats in"),
        (torch.full((10, 1, 12, 12), -200.0), "floats from -200 to -200"),
        (torch.full((10, 1, 12, 12), torch.nan), "not finite"),
        (
            torch.zeros(10, 12, 12, dtype=torch.uint8),
            r"with C 1 or 3, got uint8 \(10, 12, 12\)",
        ),
        (torch.zeros(10, 1, 12, 12, dtype=torch.int64), "got int64"),
        (torch.zeros(10, 1, 8, 8, dtype=torch.uint8), r"\(1, 12, 12\), and those to score are \(1, 8, 8\)"),
        (torch.zeros(0, 1, 12, 12), "the images are none"),
        ("nowhere", "unknown image data set 'nowhere'"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(images, sentence):
    with pytest.raises(UsageError, match=sentence):
        bench.score(images, "digits")


@pytest.mark.parametrize(
    ("asked", "sentence"), [({"device": "nope"}, "unknown device 'nope'"), ({"batch": 0}, "batch must be at")]
)
def test_where_and_how_many_at_a_time_must_be_possible(asked, sentence, drawn):
    with pytest.raises(UsageError, match=sentence):
        bench.score(drawn, "digits", **asked)


def test_a_metric_about_labels_needs_a_model(drawn):
    with pytest.raises(UsageError, match="asks whether samples show their labels"):
        bench.score(drawn, "digits", "label_accuracy_digits")


def test_the_command_prints_every_score_with_its_error(tmp_path, drawn, capsys):
    np.savez(tmp_path / "a.npz", images=bench.to_uint8(drawn).numpy())
    options = [str(tmp_path / "a.npz"), "--reference", "digits", "--metrics", "fd_digits,kid_digits"]
    assert main(["score", *options]) == 0
    out = capsys.readouterr().out
    value = bench.score(drawn, "digits", "fd_digits")["fd_digits"]
    assert "120 images of" in out and "kid_digits" in out
    assert plus_minus(value) in out
    assert main(["score", *options, "--json"]) == 0
    assert [one["metric"] for one in json.loads(capsys.readouterr().out)] == ["fd_digits", "kid_digits"]


def test_a_name_makes_a_row_beside_the_model_s_own(tmp_path, swept, drawn, capsys):
    import shutil

    folder = tmp_path / "r"
    shutil.copytree(swept, folder)
    np.savez(tmp_path / "a.npz", images=bench.to_uint8(drawn).numpy())
    row = ["--name", "theirs", "--model", "digits", "--steps", "5", "--calls", "9", "--results", str(folder)]
    options = ["score", str(tmp_path / "a.npz"), "--reference", "digits", "--metrics", ",".join(METRICS)]
    assert main([*options, *row]) == 0
    (made,) = tables_of(Store(folder).read()[0])
    assert made.rows == ["ddim eta=0", "theirs"]
    ours, theirs = (made.cells[name, 5] for name in made.rows)
    assert theirs.score.value == pytest.approx(ours.score.value, rel=1e-6)
    assert theirs.record.cost.calls == 9
    assert set(load_results(folder).label) >= {"ddim eta=0", "theirs"}
    for verb in ("table", "plot", "report", "status", "cite", "export"):
        assert main([verb, "--results", str(folder)]) == 0, verb
    capsys.readouterr()
    assert main(["compare", "--column", "5", "--results", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "theirs S=5" in shown
    assert "not paired with the best: " in shown
    assert main(["compare", "--column", "5", "--json", "--results", str(folder)]) == 0
    _, second = json.loads(capsys.readouterr().out)
    assert second["paired"] is False
    assert main(["compare", "theirs@5", "ddim:eta=0@5", "--results", str(folder)]) == 0
    assert "not paired: the images of theirs were given" in capsys.readouterr().out
    assert main(["compare", "theirs@5", "ddim:eta=0@5", "--json", "--results", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)[1]["paired"] is False
    assert main(["show", "theirs@5", "--results", str(folder)]) == 0
    assert "images of" in capsys.readouterr().out
    assert main(["run", "--n", "120", "--steps", "5", "--samplers", "ddim", "--metrics", ",".join(METRICS),
                 "--results", str(folder)]) == 0  # fmt: skip
    assert "1 of 1 trials are there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--name", "a"], "give --steps with --name"),
        (["--model", "digits"], "give --name too"),
        (["--name", "a", "--steps", "5", "--model", "digits"], "40 images cannot stand beside 120 of digits"),
        (["--name", "a", "--steps", "5", "--model", "nobody"], "no samples of nobody are in"),
        (["--n", "-5"], "--n must be at least 2 images, got -5"),
        (["--n", "5000"], "fewer than the 5,000 asked for"),
        (["--metrics", "fd_pixel"], "unknown metric 'fd_pixel'"),
    ],
)
def test_bad_input_of_score_is_one_sentence(options, sentence, swept, tmp_path, drawn, capsys):
    np.savez(tmp_path / "a.npz", images=bench.to_uint8(drawn[:40]).numpy())
    given = ["score", str(tmp_path / "a.npz"), "--reference", "digits", "--results", str(swept), *options]
    assert main(given) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and sentence in line
