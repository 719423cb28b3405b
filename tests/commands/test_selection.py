"""Rows chosen, sorted and made to fail; two results folders against each other."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import bench
from bench.commands.conditions import Condition
from bench.commands.main import main

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "exact-digits"
COLUMNS = ("sampler", "label", "steps", "fd", "strict")
ROW = {"sampler": "ddim", "label": "ddim eta=0", "steps": 10, "fd": 2.5, "strict": True}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("steps=10", True),
        ("steps == 10.0", True),
        ("steps=11", False),
        ("steps!=11", True),
        ("steps<=10", True),
        ("steps<10", False),
        ("fd>2.4", True),
        ("fd >= 1e1", False),
        ("sampler=ddim", True),
        ("sampler='ddim'", True),
        ("sampler=ddpm|ddim", True),
        ("sampler!=ddpm|ddim", False),
        ("label=ddim eta=0", True),
        ("label~eta=0", True),
        ("label~heun|eta=", True),
        ("strict=true", True),
        ("steps<=10 and sampler=ddim", True),
        ("steps<=10 and sampler=ddpm", False),
        ("steps=ten", False),
    ],
)
def test_a_condition_holds_or_does_not(text, holds):
    assert Condition.parse(text, COLUMNS).holds(ROW) is holds


def test_what_is_missing_is_not_equal_and_neither_more_nor_less():
    row = {**ROW, "fd": None}
    held = [
        sign
        for sign in ("=", "!=", "<", "<=", ">", ">=", "~")
        if Condition.parse(f"fd{sign}1", COLUMNS).holds(row)
    ]
    assert held == ["!="]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("step=10", "unknown column 'step'; did you mean steps"),
        ("steps", "is no condition"),
        ("steps<=few", "steps<= takes a number, got 'few'"),
        ("steps<1|2", "takes a number"),
        ("steps<=10 and", "takes a number, got '10 and'"),
        ("", "is no condition"),
    ],
)
def test_what_is_no_condition_is_refused(text, sentence):
    with pytest.raises(bench.UsageError, match=sentence.replace("|", r"\|")):
        Condition.parse(text, COLUMNS)


def test_an_order_of_words_is_refused():
    with pytest.raises(bench.UsageError, match="sampler holds words, as in 'ddim'"):
        Condition.parse("sampler<=3", COLUMNS).holds(ROW)


def table(capsys, *arguments):
    status = main(["table", "--results", str(REFERENCE), *arguments])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_a_filter_leaves_trials_and_real_images(capsys):
    status, out, _ = table(capsys, "--filter", "steps<=20", "--filter", "sampler=ddim", "--json")
    rows = json.loads(out)
    everything = bench.load_results(REFERENCE)
    wanted = everything[(everything.steps <= 20) & (everything.sampler == "ddim")]
    assert status == 0
    assert {row["key"] for row in rows if row["kind"] != "real"} == set(wanted[wanted.kind != "real"].key)
    assert any(row["kind"] == "real" for row in rows)


def test_the_title_says_what_was_left_out(capsys):
    _, out, _ = table(capsys, "--filter", "steps<=20")
    assert out.splitlines()[0].endswith(", where steps<=20")
    assert "S=50" not in out


def rows_of(out):
    lines = out.splitlines()
    return [line for line in lines[4 : lines.index(lines[1], 4)] if not line.startswith("real images")]


def test_rows_are_sorted_by_score_heading_label_and_column(capsys):
    frame = bench.load_results(REFERENCE)
    frame = frame[frame.kind != "real"]
    at = frame[frame.steps == 10].sort_values("fd_pixels_debiased")
    _, out, _ = table(capsys, "--sort", "10")
    assert [line.split("  ")[0].removesuffix(" clip x0") for line in rows_of(out)] == list(at.label)
    _, turned, _ = table(capsys, "--sort", "-10")
    assert rows_of(turned) == rows_of(out)[::-1]
    _, by_score, _ = table(capsys, "--sort", "score")
    _, by_last, _ = table(capsys, "--sort", "1000")
    assert rows_of(by_score) == rows_of(by_last)
    _, by_label, _ = table(capsys, "--sort=-label")
    assert rows_of(by_label) == sorted(rows_of(by_label), reverse=True)
    _, by_time, _ = table(capsys, "--sort", "sampling_seconds", "--json")
    seconds = [row["sampling_seconds"] for row in json.loads(by_time)]
    known = [one for one in seconds if one is not None]
    assert known == sorted(known)
    assert None not in seconds[: len(known)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sort", "37"], "no column of exact-digits"),
        (["--sort", "secnds"], "unknown column 'secnds'"),
        (["--sort", "secnds", "--json"], "unknown column 'secnds'"),
        (["--filter", "steps<3"], "no trial is left by --filter steps<3"),
        (["--fail-if", "fid>3"], "unknown column 'fid'"),
        (["--claims", "--sort", "score"], "--sort is for the plain tables"),
    ],
)
def test_what_cannot_be_is_one_sentence(capsys, arguments, sentence):
    status, _, err = table(capsys, *arguments)
    (line,) = err.splitlines()
    assert (status, sentence in line) == (2, True), line


def test_a_gate_fails_where_its_condition_holds(capsys):
    frame = bench.load_results(REFERENCE)
    high = frame[(frame.kind != "real") & (frame.fd_pixels > 0.2)]
    status, out, err = table(capsys, "--fail-if", "fd_pixels>0.2")
    assert status == 1
    assert len(err.splitlines()) == len(high) > 0
    assert "failed: ddim eta=1 at S=10: fd_pixels>0.2 (fd_pixels = 0.2144" in err
    assert rows_of(out)
    assert table(capsys, "--fail-if", "fd_pixels>0.2", "--filter", "steps>10")[0] == 0


@pytest.fixture
def folders(tmp_path):
    """Two folders with the same trials of ten steps, and the records of each by label."""
    found = []
    for name in ("a", "b"):
        (tmp_path / name / "records").mkdir(parents=True)
        for path in (REFERENCE / "records").glob("*-S10-*.json"):
            shutil.copy(path, tmp_path / name / "records")
        found.append(tmp_path / name)
    return found


def changed(folder, label, change):
    """Change the record of a row in a folder."""
    for path in (folder / "records").glob("*.json"):
        record = json.loads(path.read_text())
        if record["sampler"]["label"] == label:
            change(record)
            path.write_text(json.dumps(record))
            return path
    raise AssertionError(label)


def scaled(factor):
    def change(record):
        for score in record["scores"].values():
            score["value"] *= factor
            score["debiased"] *= factor
            score["leave_one_out"] = [factor * one for one in score["leave_one_out"]]

    return change


def compared(capsys, folders, *arguments):
    status = main(["compare", *map(str, folders), *arguments])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_equal_folders_are_ties(capsys, folders):
    status, out, err = compared(capsys, folders, "--json", "--fail-if", "differs")
    rows = json.loads(out)
    assert (status, err) == (0, "")
    assert len(rows) == len(list((folders[0] / "records").glob("*.json")))
    assert {(row["verdict"], row["difference"], row["p"]) for row in rows} == {("tie", 0.0, 1.0)}


def test_a_score_that_grew_is_worse_by_the_t_test_of_its_groups(capsys, folders):
    """b = 1.3 a: the difference is 0.3 a, its error 0.3 of the jackknife's."""
    path = changed(folders[1], "ddim eta=0", scaled(1.3))
    score = json.loads((folders[0] / "records" / path.name).read_text())["scores"]["fd_pixels"]
    status, out, err = compared(capsys, folders, "--json", "--fail-if", "worse")
    rows = {row["trial"]: row for row in json.loads(out)}
    row = rows["ddim eta=0 at S=10"]
    left = np.array(score["leave_one_out"])
    se = 0.3 * np.sqrt((len(left) - 1) / len(left) * ((left - left.mean()) ** 2).sum())
    assert row["difference"] == pytest.approx(0.3 * score["debiased"])
    assert row["se"] == pytest.approx(se)
    p = 2 * stats.t.sf(0.3 * score["debiased"] / se, len(left) - 1)
    assert row["p"] == pytest.approx(min(1, len(rows) * p))
    assert row["verdict"] == "worse"
    assert (status, err) == (1, "failed: ddim eta=0 at S=10: worse\n")
    status, out, _ = compared(capsys, folders)
    (line,) = [line for line in out.splitlines() if line.startswith("ddim eta=0 ")]
    assert (status, "***" in line, line.split()[-1]) == (0, True, "worse")
    turned = compared(capsys, folders[::-1], "--fail-if", "worse")
    assert turned[0] == 0
    assert " better\n" in turned[1]


def test_a_trial_that_is_gone_or_failed_does_not_slip_through(capsys, folders):
    changed(folders[1], "ddim eta=1", lambda record: record["trial"].update(seed=7))

    def fail(record):
        record.update(
            status="failed", message="no memory", scores={}, failure={"stage": "draw", "traceback": ""}
        )

    changed(folders[1], "ddim eta=0", fail)
    status, out, err = compared(capsys, folders, "--json", "--fail-if", "worse")
    verdicts = [row["verdict"] for row in json.loads(out)]
    assert (verdicts.count("missing"), verdicts.count("new"), verdicts.count("failed")) == (1, 1, 1)
    assert status == 1
    assert "ddim eta=0 at S=10: failed" in err
    assert ": missing" in err
    assert compared(capsys, folders, "--fail-if", "better")[0] == 0


def test_a_field_that_is_all_the_difference_is_told(capsys, folders):
    for path in (folders[1] / "records").glob("*.json"):
        record = json.loads(path.read_text())
        record["trial"]["model"] = "mine"
        path.write_text(json.dumps(record))
    status, out, _ = compared(capsys, folders)
    assert status == 0
    assert "model: exact-digits and mine" in out.splitlines()[0]
    assert " tie" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--column", "10"], "leave --column and --calls out"),
        (["--fail-if", "wrse"], "--fail-if takes worse, better"),
        (["--fail-if", "verdikt=worse"], "unknown column 'verdikt'; did you mean verdict"),
        (["--metric", "fid"], "unknown metric 'fid'"),
    ],
)
def test_folders_and_what_does_not_go_with_them(capsys, folders, arguments, sentence):
    status, _, err = compared(capsys, folders, *arguments)
    (line,) = err.splitlines()
    assert (status, sentence in line) == (2, True), line


def test_a_folder_and_something_else(capsys, folders):
    assert main(["compare", str(folders[0]), "ddim@10"]) == 2
    assert "ddim@10 is no folder" in capsys.readouterr().err
    assert main(["compare", str(folders[0])]) == 2
    assert "two trials or two results folders; got 1" in capsys.readouterr().err


def test_two_trials_can_fail_a_gate_too(capsys):
    pair = ["compare", "ddim:eta=0@10", "ddim:eta=1@10", "--results", str(REFERENCE)]
    assert main([*pair, "--fail-if", "worse"]) == 1
    assert main([*pair, "--fail-if", "better"]) == 0
    assert main([*pair, "--fail-if", "difference>0.1"]) == 1
    assert "failed: ddim eta=1 S=10: difference>0.1 (difference = 0.15" in capsys.readouterr().err
