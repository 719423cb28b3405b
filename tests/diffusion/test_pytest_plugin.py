"""``pytest --check-sampler``: a clause a test, in the author's own run."""

import subprocess
import sys

import pytest
from support.plugins import HEUN


@pytest.fixture
def run(tmp_path):
    (tmp_path / "mine.py").write_text(HEUN)
    (tmp_path / "wrong.py").write_text(HEUN.replace("order=2", "order=3"))
    (tmp_path / "test_own.py").write_text("def test_own():\n    pass\n")

    def pytest_in_folder(*asked):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *asked]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return pytest_in_folder


def test_every_clause_is_a_test_beside_the_author_s_own(run):
    done = run("--check-sampler", "mine.py")
    assert done.returncode == 0, done.stdout
    assert "20 passed, 1 skipped" in done.stdout


def test_a_broken_clause_is_a_failed_test_with_its_measurement(run):
    done = run("--check-sampler", "wrong.py")
    assert done.returncode == 1
    assert "declared 3" in done.stdout
    assert "2 failed, 18 passed, 1 skipped" in done.stdout


def test_an_unknown_sampler_is_one_sentence(run):
    done = run("--check-sampler", "nonsense")
    assert done.returncode != 0
    assert "unknown sampler 'nonsense'" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
