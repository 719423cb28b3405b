"""`new` writes files that work as they are."""

import os
import subprocess
import sys

import pytest
from support.commands import bench

from bench.commands.main import main


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_sampler_passes_its_check_as_written(tmp_path):
    assert main(["new", "sampler", "my-rule"]) == 0
    done = bench("check", tmp_path / "my_rule.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout


def test_a_model_and_a_score_run_as_written(tmp_path):
    assert main(["new", "model", "my-model"]) == 0
    assert main(["new", "metric", "my-score"]) == 0
    asked = ["--samplers", "ddim", "--steps", "5", "--n", "40", "--results", tmp_path / "results"]
    done = bench("run", "--plugin", "my_score.py", "--metrics", "fd_my_score", *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    make = [sys.executable, "-c", "from my_model import my_model; print(my_model().shape)"]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(make, env=found, capture_output=True, text=True, check=True)
    assert done.stdout == "(3, 8, 8)\n"


@pytest.mark.parametrize("kind", ["sampler", "model", "metric"])
def test_a_package_passes_its_tests_as_written(tmp_path, kind):
    assert main(["new", kind, "my-own", "--package"]) == 0
    folder = tmp_path / "my-own"
    assert {path.name for path in folder.iterdir()} == {
        "my_own.py",
        "pyproject.toml",
        "tests",
        ".github",
        "README.md",
    }
    found = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    installed = folder / "my_own-0.1.0.dist-info"  # as pip install -e leaves it
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-own\nVersion: 0.1.0\n")
    (installed / "entry_points.txt").write_text("[sampler_bench]\nmy-own = my_own\n")
    workflow = (folder / ".github" / "workflows" / "tests.yml").read_text()
    asked = workflow.partition("python -m pytest")[2].split()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *asked]
    done = subprocess.run(command, cwd=folder, env=found, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    listed = bench("list", "--plugin", folder / "my_own.py", "--json")
    assert listed.returncode == 0
    assert "my-own" in listed.stdout or "fd_my_own" in listed.stdout


def test_nothing_is_written_over(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("precious")
    assert main(["new", "sampler", "mine"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "mine.py").read_text() == "precious"


@pytest.mark.parametrize(
    "name", ["Mine", "my_rule", "-x", "1st", "ddim", "class", "sqrt", "predict-x0", "random", "torch"]
)
def test_a_name_that_cannot_be_one_gets_a_sentence(name, capsys):
    assert main(["new", "sampler", "--", name] if name.startswith("-") else ["new", "sampler", name]) == 2
    assert capsys.readouterr().err
