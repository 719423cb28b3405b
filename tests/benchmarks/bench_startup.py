"""How long the command line takes to start, as a ratio to the bare ``import torch`` of the same run."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

DIGITS = Path(__file__).parents[2] / "results" / "reference" / "digits"
pytestmark = pytest.mark.ratio
ROUNDS = 5

COMMANDS = {
    "help": (["--help"], 0.35),
    "run --help": (["run", "--help"], 0.35),
    "usage error": (["run", "--stepz", "3"], 0.35),
    "list": (["list"], 1.6),
    "status": (["status", "--results", str(DIGITS)], 1.6),
}


def seconds(*arguments):
    """The wall-clock time of a Python process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    return time.perf_counter() - began


@pytest.mark.parametrize("name", COMMANDS)
def test_the_start_of(name, benchmark):
    """The two are timed in turn, so that a machine that slows down slows both."""
    arguments, most = COMMANDS[name]
    ratios = []

    def both():
        torch = seconds("-c", "import torch")
        ratios.append(seconds("-m", "bench", *arguments) / torch)

    both()  # files come into the cache
    ratios.clear()
    benchmark.pedantic(both, rounds=ROUNDS)
    found = statistics.median(ratios)
    benchmark.extra_info |= {"of the import of torch": round(found, 3), "at most": most}
    print(f"{name}: {found:.2f} of the import of torch (at most {most})")
    assert found < most
