"""A table that needs a longer name than before leaves no file of the old one behind."""

import pytest

import bench
from bench.commands.main import main
from bench.records.store import Store
from bench.report.tables.table import slugs_of, tables_of

SWEEP = ["run", "--model", "exact-gaussian", "--samplers", "ddim:eta=0", "--steps", "2"]


@pytest.fixture
def folder(tmp_path):
    """A folder of a run with 20 samples, and files of its user's beside the tables and plots."""
    results = tmp_path / "results"
    assert main([*SWEEP, "--n", "20", "--results", str(results)]) == 0
    first = {path.name for path in results.glob("*/exact-gaussian*") if path.parent.name != "records"}
    assert {"exact-gaussian-fd_pixels.csv", "exact-gaussian-fd_pixels-steps.png"} <= first
    for name in ("tables/exact-gaussian-fd_pixels-notes.md", "plots/exact-gaussian-fd_pixels-mine.png"):
        (results / name).write_bytes(b"mine")
    return results, first


def names(results):
    return {path.name for kind in ("tables", "plots") for path in (results / kind).iterdir()}


MINE = {"exact-gaussian-fd_pixels-notes.md", "exact-gaussian-fd_pixels-mine.png"}


def test_another_n_gives_tables_and_plots_new_names_and_the_old_ones_go(folder):
    results, first = folder
    assert main([*SWEEP, "--n", "30", "--results", str(results)]) == 0
    there = names(results)
    assert {f"exact-gaussian-fd_pixels-n{n}.csv" for n in (20, 30)} <= there
    assert there & first == {name for name in first if "fd_pixels" not in name}
    assert there >= MINE
    for name in MINE:
        next(results.glob(f"*/{name}")).unlink()
    assert main(["verify", str(results)]) == 0


def test_a_run_from_python_draws_no_plots_and_verify_says_what_does(folder, capsys):
    results, first = folder
    bench.run("ddim:eta=0", steps=[2], model="exact-gaussian", n=30, results=results, progress=False)
    assert names(results) & first == {name for name in first if "fd_pixels" not in name}
    assert names(results) >= MINE
    assert main(["verify", str(results)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == f"to make them again: `sampler-bench plot --results {results}`"
    assert main(["plot", "--results", str(results)]) == 0
    assert main(["verify", str(results)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert {line.split()[1].rpartition("/")[2] for line in told if line.startswith("error")} == MINE


def test_names_that_tables_had_are_known_whatever_told_them_apart(tmp_path):
    for more in ({}, {"seed": 3}, {"spacings": "quadratic"}, {"n": 30}):
        chosen = {"n": 20, "steps": [2], "model": "exact-gaussian", "results": tmp_path, **more}
        bench.run("ddim:eta=0", progress=False, **chosen)
        records = Store(tmp_path).read()[0]
        tables = tables_of(records)
        assert all(slugs_of(records).fullmatch(table.slug) for table in tables)
        assert {path.stem for path in (tmp_path / "tables").glob("*.csv")} >= {one.slug for one in tables}
    assert len({table.slug for table in tables}) == len(tables) == 3
    assert not slugs_of(records).fullmatch("exact-gaussian-fd_pixels-notes")
