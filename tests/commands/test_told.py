"""What was done other than asked is told, on any console, under the names that were given."""

import json
import shutil

import pytest
from support.commands import bench as run_bench

import bench

MODEL = "exact-gaussian"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    results = tmp_path_factory.mktemp("taken") / "results"
    done = run_bench(
        *("run", "--model", MODEL, "--samplers", "ddim", "--steps", "10,53", "--n", "20"),
        *("--results", results),
    )
    assert done.returncode == 0, done.stderr
    return results, done


def test_another_number_of_steps_is_told_before_and_below_the_table(run):
    results, done = run
    assert "takes another number of steps: 56 for S=53" in " ".join(done.stderr.split())
    assert "spacing uniform takes 56 steps for S=53" in " ".join(done.stdout.split())
    table = run_bench("table", "--results", results)
    assert "spacing uniform takes 56 steps for S=53" in " ".join(table.stdout.split())


def test_the_report_tells_it_too(run, tmp_path):
    results, _ = run
    done = run_bench("report", "--results", results, "--out", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    page = " ".join((tmp_path / "report.html").read_text(encoding="utf-8").split())
    assert "spacing uniform takes 56 steps for S=53" in page


def test_what_csv_cannot_hold_on_a_console_is_told(run, tmp_path):
    results, _ = run
    for path in shutil.copytree(results, tmp_path / "r").glob("records/*.json"):
        path.write_text(path.read_text().replace(f'"{MODEL}"', '"einé"'))
    as_csv = run_bench("export", "--results", tmp_path / "r", PYTHONIOENCODING="ascii")
    assert "which lacks some letters" in as_csv.stderr
    as_json = run_bench("export", "--results", tmp_path / "r", "--format", "json", PYTHONIOENCODING="ascii")
    assert {row["model"] for row in json.loads(as_json.stdout)} == {"einé"}


@pytest.mark.parametrize("verb", ["table", "list", "status", "show"])
def test_any_console_shows_all_of_it(run, verb):
    results, _ = run
    arguments = {"list": ("list",), "show": ("show", "ddim@10", "--results", results)}
    given = arguments.get(verb, (verb, "--results", results))
    done = run_bench(*given, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_names_stand_as_they_are_given(run, tmp_path):
    results, _ = run
    for path in shutil.copytree(results, tmp_path / "r").glob("records/*.json"):
        path.write_text(path.read_text().replace(f'"{MODEL}"', '"mm.py:ok: [bold]x[/]"'))
    out = run_bench("table", "--results", tmp_path / "r").stdout
    assert "mm.py:ok: [bold]x[/]" in out


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(bench.UsageError, match="there is no folder"):
        bench.load_results(tmp_path / "nowhere")
