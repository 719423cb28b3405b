"""A model's training in its results: kept, drawn, shown, verified, merged; damage is one sentence."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.reports import results

from bench.commands.main import main
from bench.commands.run import _keep_training
from bench.drawing.curves import duration, smoothed, training_curves
from bench.drawing.figures import rendered
from bench.drawing.style import THEMES
from bench.errors import BenchError
from bench.plugins.lookup import get_card
from bench.records.merging import merge
from bench.records.store import Store
from bench.records.trainings import COLUMNS, read_metrics
from bench.report.page.html import report
from bench.report.plots.training import trainings
from bench.report.verify import verify

SHIPPED = get_card("digits").training


@pytest.fixture
def store(tmp_path):
    made = results(tmp_path / "results")
    made.keep_training("digits", SHIPPED)
    return made


def rows(*values, columns=COLUMNS):
    return "\n".join([",".join(columns), *(",".join(map(str, row)) for row in values)]) + "\n"


def test_a_run_keeps_the_table_of_the_model_it_is_about(tmp_path):
    arguments = ["run", "--model", "digits", "--samplers", "ddim", "--steps", "2", "--n", "20"]
    assert main([*arguments, "--results", str(tmp_path)]) == 0
    assert (tmp_path / "training" / "digits.csv").read_bytes() == SHIPPED.read_bytes()
    assert (tmp_path / "plots" / "digits-training.png").is_file()
    assert main(["verify", str(tmp_path)]) == 0


def test_the_table_beside_a_file_of_weights_is_its_own(tmp_path):
    (tmp_path / "metrics.csv").write_text("")
    assert get_card(str(tmp_path / "weights.safetensors")).training is None  # there are no weights
    (tmp_path / "weights.safetensors").write_bytes(b"")
    for spec in ("weights.safetensors", "weights.safetensors:T=4000,schedule=cosine"):
        assert get_card(str(tmp_path / spec)).training == tmp_path / "metrics.csv"
    assert get_card("exact-gaussian").training is None


def test_a_foreign_table_beside_the_weights_stops_nothing(tmp_path, capsys):
    (tmp_path / "metrics.csv").write_text("epoch,accuracy\n1,0.5\n")
    card = replace(get_card("digits"), training=tmp_path / "metrics.csv")
    _keep_training(card, Store(tmp_path / "results"))
    (sentence,) = capsys.readouterr().err.splitlines()
    assert f"training table {tmp_path / 'metrics.csv'} cannot be used: it has no column 'step'" in sentence
    assert not (tmp_path / "results").exists()


def test_the_course_of_a_power_law_is_the_power_law_itself_and_noise_is_averaged_out():
    steps = np.arange(1.0, 401.0)
    law = np.exp(-steps / 100)
    assert smoothed(law) == pytest.approx(law, rel=1e-12)  # a straight line in logarithms, ends too
    assert smoothed(5 - steps) == pytest.approx(5 - steps, abs=1e-9)  # not positive: straight as it is
    noisy = law * np.exp(np.random.default_rng(0).normal(0, 0.2, 400))
    left = np.log(smoothed(noisy) / law)
    assert left.std() < 0.2 / 4  # 51 rows under tricube weights are worth about 35
    broken = law.copy()
    broken[7] = math.nan
    assert np.isnan(smoothed(broken)[7])
    assert np.delete(smoothed(broken), 7) == pytest.approx(np.delete(law, 7), rel=1e-12)


def test_what_is_drawn_is_what_the_table_has():
    def labels(columns, *lines):
        table = dict(zip(columns, map(list, zip(*lines, strict=True)), strict=True))
        return [axes.get_ylabel() for axes in training_curves(table, "m").axes], [
            line.get_gid() for axes in training_curves(table, "m").axes for line in axes.lines
        ]

    simple = ("step", "loss", "simple")
    assert labels(simple, (1, 0.5, 0.5), (2, 0.4, 0.4)) == (
        ["$L_{simple}$"],
        ["rows-simple", "course-simple"],
    )
    whole = (*simple, "vlb_bits_per_dim")
    names, lines = labels(whole, (1, 0.6, 0.5, 6.0), (2, 0.5, 0.4, 5.0))
    assert len(names) == 2
    assert lines[:3] == ["rows-simple", "course-simple", "course-loss"]
    assert "course-loss" not in labels(whole, (1, 6.0, 0.5, 6.0), (2, 5.0, 0.4, 5.0))[1]  # it is L_vlb
    assert len(labels(whole, (1, 0.5, 0.5, math.nan), (2, 0.4, 0.4, math.nan))[0]) == 1
    axes = training_curves({"step": [1, 2], "simple": [0.1, -0.1]}, "m").axes[0]
    assert axes.get_yscale() == "linear"


def test_times_are_told_in_the_unit_that_suits_them():
    assert [duration(s) for s in (59.6, 660, 1680, 93_600)] == [
        "60 seconds", "11 minutes", "28 minutes", "26.0 hours",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("suffix", "theme", "name"),
    [("svg", "light", "digits-training"), ("pdf", "dark", "digits-training-dark")],
)
def test_plot_draws_it_in_every_form_on_either_paper(store, suffix, theme, name, capsys):
    assert main(["plot", "--results", str(store.folder), "--format", suffix, "--theme", theme]) == 0
    path = store.folder / "plots" / f"{name}.{suffix}"
    assert str(path) in capsys.readouterr().out
    (training,) = trainings(store, ["digits"])
    assert path.read_bytes() == rendered(training.figure(THEMES[theme]), suffix, THEMES[theme])


def test_the_report_shows_it_once_a_model(store):
    text = report(store, store.read()[0])
    assert text.count('aria-label="How it was trained: digits"') == 1
    assert "Losses of 12,000 steps, 12,288,000 images, 28 minutes." in text
    assert '<a href="#training">Training</a>' in text
    shutil.rmtree(store.training)
    without = report(store, store.read()[0])
    assert "training" not in without.partition("<main")[2].partition("</main>")[0]


def test_verify_makes_it_again_from_the_table_alone(store):
    assert main(["plot", "--results", str(store.folder)]) == 0
    assert not [str(f) for f in verify(store.folder).findings if f.path.parent.name == "plots"]
    path = store.training_table("digits")
    table = path.read_text().splitlines()
    path.write_text("\n".join(table[:60]) + "\n")
    found = {f.path.name: f.reason for f in verify(store.folder).findings}
    assert "differs from what the records make" in found["digits-training.png"]
    path.unlink()
    found = {f.path.name: f.reason for f in verify(store.folder).findings}
    assert found["digits-training.png"] == "is made by no record"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it has no column 'step'"),
        ("epoch,accuracy\n1,0.5\n", "it has no column 'step'"),
        (rows((1, 2), columns=("step", "loss")), "it has no column 'simple'"),
        (rows(), "its steps do not ascend"),
        (rows((100, 1, 1, 1, 1, 1, 1, 1, 1), (50, 1, 1, 1, 1, 1, 1, 1, 1)), "its steps do not ascend"),
        (rows((100, 1, 1, 1, 1, 1, 1, 1, 1), (200, 1, 1)), "row 3 is not 9 numbers"),
        (rows((100, 1, 1, "<script>", 1, 1, 1, 1, 1)), "row 2 is not 9 numbers"),
        (rows((100, 1, 1, "nan", 1, 1, 1, 1, 1)), "its column 'simple' has no finite value"),
        (b"\xff\xfe\x00", "it is no text"),
        ("step,simple\n1,\x00\n", "row 2 is not 2 numbers"),
    ],
)
def test_damage_is_one_sentence_and_stops_nothing_else(store, text, reason, capsys):
    path = store.training_table("digits")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BenchError, match="cannot be used"):
        read_metrics(path)
    (training,) = trainings(store, ["digits"])
    assert f"training table training/digits.csv cannot be used: {reason}; restore" in training.damage
    assert training.damage.replace("'", "&#39;") in report(store, store.read()[0])
    reasons = {f.path.name: f.reason for f in verify(store.folder).findings}
    assert reason in reasons["digits.csv"]


def test_plot_and_report_say_so(store, capsys):
    store.training_table("digits").write_text("no table\n")
    for verb in ("plot", "report"):
        assert main([verb, "--results", str(store.folder)]) == 0
        (sentence,) = capsys.readouterr().err.splitlines()
        assert sentence.startswith("warning: training table training/digits.csv cannot be used")
    assert not (store.folder / "plots" / "digits-training.png").exists()
    assert (store.folder / "plots" / "digits-fd_digits-steps.png").is_file()


def test_merge_takes_it_along_and_names_another(store, tmp_path):
    target = tmp_path / "all"
    assert not merge([store.folder], target).conflicts
    assert (target / "training" / "digits.csv").read_bytes() == SHIPPED.read_bytes()
    assert not merge([store.folder], target).conflicts
    store.training_table("digits").write_text(rows((100, 1, 1, 1, 1, 1, 1, 1, 1)))
    (conflict,) = merge([store.folder], target).conflicts
    assert str(conflict).endswith("digits.csv differ in rows; the latter is kept")
    assert (target / "training" / "digits.csv").read_bytes() == Path(SHIPPED).read_bytes()
