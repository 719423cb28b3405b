"""The tables of docs/faults.md: each row has its test, which looks for its words, and each test its row."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SWEEP = Path(__file__).parent / "sweep"
FAULTS = ("test_faults", "test_isolation", "test_ray", "test_ray_faults", "test_submitit", "test_together")
"""Files that are about faults: every test of theirs has a row, but for those below."""

NO_FAULT = {
    "test_a_job_asks_for_a_gpu_unless_the_user_does",
    "test_an_unknown_signal_is_told_by_its_number",
    "test_jobs_get_about_as_many_steps_each",
    "test_options_that_cannot_be_are_refused",
    "test_options_that_contradict_are_refused",
    "test_the_model_is_loaded_once_a_worker",
    "test_torchrun_takes_no_option_of_a_run_for_its_own",
    "test_without_ray_the_user_is_told_what_to_install",
    "test_without_submitit_the_user_is_told_what_to_install",
}
CODE = re.compile(r"`([^`]+)`")


def rows():
    """(what was done, what is said, tests as (file, name)) of every row; "the same" is the test above."""
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    found, tests = [], []
    for line in text.splitlines():
        if not line.startswith("| ") or line.startswith("| what was done"):
            continue
        done, said, _, _, held = (cell.strip() for cell in line.strip("|").split(" | "))
        if held != "the same":
            tests = [tuple(name.split("::")) for name in CODE.findall(held)]
        found.append((done, said, tests))
    return found


def functions(file):
    tree = ast.parse((SWEEP / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def texts(path):
    """The strings of a file, those side by side as one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


ROWS = rows()


@pytest.mark.parametrize(("done", "said", "tests"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_has_its_tests_and_they_look_for_what_it_says(done, said, tests):
    assert tests
    for file, name in tests:
        assert name in functions(file)
    told = [text for file, _ in tests for text in texts(SWEEP / file)]
    told += texts(ROOT / "bench" / "commands" / "stopping.py") + texts(
        ROOT / "bench" / "commands" / "together.py"
    )
    for words in CODE.findall(said):
        if words not in ("torchrun", "--timeout"):
            assert any(words in text for text in told), words


def test_every_test_of_a_fault_has_a_row():
    named = {name for *_, tests in ROWS for _, name in tests}
    there = {name for file in FAULTS for name in functions(f"{file}.py") if name.startswith("test_")}
    assert there - named == NO_FAULT
