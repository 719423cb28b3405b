"""Habits of command lines: how much is said, how wide and in which colours, and from which folder."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.commands import bench as run_bench

import bench
from bench.commands import paths
from bench.commands.main import main
from bench.commands.options import console, print_json
from bench.commands.verbosity import Verbosity, is_quiet, set_verbosity
from bench.report.tables.scores import score_sheet, show
from bench.report.tables.table import tables_of

ROOT = Path(bench.__file__).parents[1]
SMALL = ("run", "--model", "exact-gaussian", "--samplers", "ddim", "--steps", "2,3", "--n", "20", "--results")
SCRIPT = (
    "import sys; sys.path[:] = filter(None, sys.path); from bench.commands.main import main; sys.exit(main())"
)
"""What an installed command does: the current folder is not on its path."""


@pytest.fixture(autouse=True)
def _normal():
    yield
    set_verbosity(Verbosity.NORMAL)


def test_quiet_leaves_the_table_and_verbose_tells_the_choices(tmp_path):
    quiet = run_bench("-q", *SMALL, tmp_path / "r")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert "ddim eta=0" in quiet.stdout
    assert "records in" not in quiet.stdout
    told = run_bench(*SMALL, tmp_path / "r", "-v")
    assert re.search(r"sampler-bench .*, torch \d.*, Python 3", told.stderr)
    for line in ("  model: exact-gaussian", "  steps: 2,3", "  n: 20", "2 of 2 trials are there already"):
        assert line in told.stderr
    assert re.search(r"run took \d+\.\d s, exit status 0", told.stderr)
    assert "records in" in told.stdout


def test_verbose_shows_where_an_error_comes_from(tmp_path, capsys):
    asked = ["table", "--results", str(tmp_path)]
    assert main(asked) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main(["-v", *asked]) == 2
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert told.splitlines()[-1].startswith("error: no records in")


def test_how_much_is_said_is_not_kept_from_one_command_to_the_next(tmp_path):
    main(["stats", "nothing", "--metric", "fd_pixels", "-q"])
    assert is_quiet()
    main(["table", "--results", str(tmp_path)])
    assert not is_quiet()


def test_a_console_is_as_wide_as_columns_says(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console().width == 200
    monkeypatch.setenv("COLUMNS", "77")
    assert console().width == 77


def reference_table():
    reference = Path(__file__).parents[2] / "results" / "reference" / "exact-digits"
    return tables_of(bench.records.store.Store(reference).read()[0])[0]


@pytest.mark.parametrize("width", [50, 80, 100, 300])
def test_every_name_and_score_stands_whole_on_a_console_of_any_width(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    table = reference_table()
    show(table, console())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    rows = [line.strip("│ ").split("│") for line in lines if line.startswith("│")]
    sheet = score_sheet(table)
    names = [row[0] for row in sheet.rows]
    parts = len(rows) // len(names)
    assert [row[0].strip() for row in rows] == names * parts
    for place, (_, *scores) in enumerate(sheet.rows):
        shown = [cell.strip(" *~") for part in range(parts) for cell in rows[part * len(names) + place][1:]]
        assert shown == scores
    assert (parts == 1) == (width == 300)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_parameters_of_samplers_stand_whole_with_their_values(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["list", "samplers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert any("variance=fixedsmall" in line for line in lines)


def test_json_has_no_number_that_is_none(capsys):
    print_json({"a": [math.nan, (math.inf, np.float64(-math.inf))], "b": 1.5, "c": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"a": [None, [None, None]], "b": 1.5, "c": "x"}


@pytest.mark.parametrize(
    ("verb", "variable", "given"),
    [("run", "RANK", ""), ("run", "RANK", "x"), ("run", "LOCAL_RANK", "-1"), ("train", "WORLD_SIZE", "two")],
)
def test_a_variable_of_torchrun_that_is_no_number_is_named(
    verb, variable, given, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, given)
    asked = {
        "run": ["--model", "exact-gaussian", "--samplers", "ddim", "--steps", "2", "--n", "20"],
        "train": ["digits", "--steps", "1", "--device", "cpu"],
    }
    assert main([verb, *asked[verb]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: the variable {variable} must be a whole number") and repr(given) in line
    assert not (tmp_path / "results").exists()


def test_without_colours_signs_say_what_colours_would(monkeypatch, capsys):
    table = reference_table()
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "300")
    show(table, console())
    coloured = capsys.readouterr().out
    assert "\x1b[32m" in coloured
    assert "green:" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    show(table, console())
    plain = capsys.readouterr().out
    assert "\x1b[32m" not in plain
    assert "green:" not in plain
    assert re.search(r"\d\* ", plain)
    assert "* best of its column" in plain


def started(how, folder, *arguments):
    """What a command says that is started in a folder."""
    return subprocess.run(
        [sys.executable, *how, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def crowded(tmp_path):
    """A user's folder with a module or package of each of the project's names, and one that they import."""
    (tmp_path / "samplers.py").write_text("raise RuntimeError('mine')\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise RuntimeError('mine')\n")
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "notes.txt").write_text("times\n")
    return tmp_path


@pytest.mark.parametrize("how", [("-m", "bench"), ("-c", SCRIPT)], ids=["module", "command"])
def test_packages_of_the_users_take_no_ones_place(crowded, how):
    done = started(how, crowded, *SMALL, "r", "--executor", "processes")
    assert done.returncode == 0, done.stderr
    assert len(bench.load_results(crowded / "r")) == 3


def test_the_command_works_beside_a_package_called_bench(crowded):
    (crowded / "bench" / "__init__.py").write_text("raise RuntimeError('mine')\n")
    assert started(("-c", SCRIPT), crowded, "list", "spacings").returncode == 0


def test_packages_that_stand_in_the_way_for_good_are_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(paths, "ROOT", tmp_path)  # as if ours were somebody else's
    assert main(["list"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the package 'samplers' is found in" in line
    assert "`sampler-bench` in the place of `python -m bench`" in line
