"""Guidance as an axis: tables that differ in the scale alone, their plots, and images of any shape."""

import json
from dataclasses import replace

from support.reports import record

from bench.commands.main import main
from bench.records.record import FLOOR, ModelInfo
from bench.records.trial import split_option, with_option
from bench.report.plots.guidance import scales_of, score_against_another, score_against_guidance
from bench.report.tables.table import tables_of


def test_an_option_of_a_model_is_taken_out_and_put_in():
    assert split_option("digits-conditional:guidance=3,label=uniform", "guidance") == (
        "digits-conditional:label=uniform",
        "3",
    )
    assert split_option("digits:guidance=3", "guidance") == ("digits", "3")
    assert split_option("mine.py:make", "guidance") == ("mine.py:make", None)
    assert with_option("digits", "guidance", "2") == "digits:guidance=2"
    assert with_option("digits:label=3,guidance=4", "guidance", "2") == "digits:label=3,guidance=2"


def scored(scale, spec, value, recall):
    made = record(spec, 20, value, model=f"conditional:guidance={scale:g}", metric="fd")
    other = replace(made.scores["fd"], metric="recall", value=recall, higher_is_better=True)
    trial = replace(made.trial, metrics=("fd", "recall"))
    return replace(made, trial=trial, key=trial.key, scores={**made.scores, "recall": other})


def test_tables_of_several_scales_make_two_plots():
    records = [
        scored(w, spec, value + w, 1 / w)
        for w in (4, 1, 2)
        for spec, value in (("ddim:eta=0", 1), ("ddim:eta=1", 2))
    ]
    (scales,) = scales_of(tables_of(records))
    assert list(scales.tables) == [1, 2, 4]
    assert scales.model == "conditional"
    curves = dict(scales.curves())
    assert [(w, r.scores["fd"].value) for w, r in curves["ddim eta=1, S=20"]] == [(1, 3), (2, 4), (4, 6)]
    assert scales.names == ["fd", "recall"]
    first, second = score_against_guidance(scales).axes
    assert list(first.lines[0].get_xdata()) == list(second.lines[0].get_xdata()) == [1, 2, 4]
    assert list(second.lines[0].get_ydata()) == [1, 1 / 2, 1 / 4]
    assert [text.get_text() for text in second.get_xticklabels()] == ["1", "2", "4"]
    (axes,) = score_against_another(scales).axes
    assert axes.get_xlabel() == "recall\n(higher is better)"
    assert list(axes.lines[0].get_xdata()) == [1, 1 / 2, 1 / 4]
    assert list(axes.lines[0].get_ydata()) == [2, 3, 5]
    assert [text.get_text() for text in axes.texts] == ["w=1", "w=2", "w=4"] * 2
    assert scales_of(tables_of([record("ddim:eta=0", 10)])) == []
    assert scales_of(tables_of([scored(2, "ddim:eta=0", 1, 1)])) == []


def test_points_of_images_in_a_wrong_range_are_open_and_real_images_are_a_star():
    records = [scored(w, "ddim:eta=0", w, 1 / w) for w in (1, 2, 8)]
    cut = replace(records[2].scores["fd"], flags=("saturated",))
    records[2] = replace(records[2], scores={**records[2].scores, "fd": cut})
    real = record(FLOOR, 0, 0.5, model="conditional:guidance=1", metric="fd")
    other = replace(records[0].scores["recall"], value=0.9)
    records.append(replace(real, scores={**real.scores, "recall": other}))
    (scales,) = scales_of(tables_of(records))
    first, second = score_against_guidance(scales).axes
    (opened,) = [
        line for line in first.lines if line.get_markerfacecolor() == "#FFFFFF" and len(line.get_xdata())
    ]
    assert (list(opened.get_xdata()), list(opened.get_ydata())) == ([8], [8])
    assert not [line for line in second.lines if line.get_markerfacecolor() == "#FFFFFF"]
    (axes,) = score_against_another(scales).axes
    (star,) = [line for line in axes.lines if line.get_marker() == "*"]
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([0.9], [0.5])


def test_tables_of_other_weights_or_references_are_no_one_curve():
    records = [scored(w, "ddim:eta=0", w, 1 / w) for w in (1, 2)]
    others = [
        replace(one, model=ModelInfo("11"), trial=replace(one.trial, seed=1), key=f"{place:016x}")
        for place, one in enumerate(records)
    ]
    found = scales_of(tables_of(records + others))
    assert [list(scales.tables) for scales in found] == [[1, 2], [1, 2]]


def test_guidance_is_an_axis_of_the_sweep(tmp_path, capsys):
    command = ["run", "--model", "digits-conditional:label=balanced", "--guidance", "1", "3", "--n", "40"]
    command += ["--samplers", "ddim", "--steps", "5", "--metrics", "fd_pixels", "--results", str(tmp_path)]
    assert main([*command, "--json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row["kind"] == "samples"]
    assert [(row["network_calls"], row["evaluations"]) for row in rows] == [(5, 5), (5, 10)]
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert "digits-conditional-label-balanced-fd_pixels-guidance.png" in names
    assert [name for name in names if "training" in name] == [
        "digits-conditional-label-balanced-training.png"
    ]
    assert main(["report", "--results", str(tmp_path)]) == 0
    assert main(["verify", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "What guidance gains and what it costs" in page and 'href="#guidance"' in page
    capsys.readouterr()
    assert main([*command[:2], "digits", *command[3:]]) == 2
    assert "model 'digits' takes no options: it has no conditions to guide" in capsys.readouterr().err
    assert main(["nll", "--model", "digits-conditional", "--n", "4", "--results", str(tmp_path)]) == 2
    assert "there is no likelihood under guidance" in capsys.readouterr().err
