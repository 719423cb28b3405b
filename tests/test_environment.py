"""The page on environment variables names every variable that the code reads or sets, and no other."""

import ast
import re
from pathlib import Path

import bench
from bench.device.cores import SPINS
from bench.metrics.weights import FILES
from bench.sweep.executors.seat import PASSED_ON

ROOT = Path(bench.__file__).parents[1]
PAGE = (Path(__file__).parent.parent / "docs" / "environment.md").read_text(encoding="utf-8")
OWN = "SAMPLER_BENCH_"

WORDS = {"FILE", "OUT", "IMAGES", "DIR", "CPU", "GPU", "FAILED", "FINISHED"}
"""Words in capitals, in modules that read the environment, that name something else."""


def read_by_the_code():
    """Names in capitals in modules that read the environment, and those of our own in any module."""
    found = {file.accept_variable for file in FILES.values()}
    for package in ("bench", "samplers", "models"):
        for path in (ROOT / package).rglob("*.py"):
            source = path.read_text(encoding="utf-8")
            nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
            texts = {node.value for node in nodes if isinstance(node.value, str)}
            names = {text for text in texts if re.fullmatch(r"[A-Z][A-Z0-9]+(_[A-Z0-9]+)*", text)}
            reads = re.search(r"\bos\.(environ|getenv)\b", source) is not None
            found |= {name for name in names if reads or name.startswith(OWN)}
    return found - WORDS


def rows():
    """The rows of the page's tables: (names of variables, the whole row)."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| `")]
    return [(re.findall(r"`(\w+)`", line.split("|")[1]), line) for line in lines]


def test_every_variable_that_is_read_is_on_the_page_once():
    named = [name for names, _ in rows() for name in names]
    assert len(set(named)) == len(named)
    assert read_by_the_code() - set(named) == set()


def test_a_variable_on_the_page_is_read_here_or_by_the_library_it_says():
    known = read_by_the_code()
    ours = [names for names, row in rows() if "read by" not in row]
    assert {name for names in ours for name in names} - known == set()


def test_nothing_is_read_in_another_way_than_the_test_looks_for():
    """``from os import environ`` and the like would be overlooked."""
    for package in ("bench", "samplers", "models"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module == "os":
                    assert not {alias.name for alias in node.names} & {"environ", "getenv", "environb"}, path


def test_what_workers_are_given_and_how_threads_wait_is_as_the_page_says():
    (sentence,) = (line for line in PAGE.splitlines() if line.startswith("Workers on other machines"))
    assert tuple(re.findall(r"`(\w+)`", sentence)) == PASSED_ON
    assert f"set to {SPINS} where `OMP_WAIT_POLICY` is unset too" in PAGE
