"""Memory that is freed and allocated again is not cleared anew by the system."""

import ctypes
import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from bench.device.allocator import keep_freed_memory
kept = {keeps} and keep_freed_memory()
def use():
    for _ in range(20):
        torch.ones(1 << 24)  # 64 MiB
def pages(work):
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(kept, pages(use))
"""
KEEPS = "from bench.device.allocator import keep_freed_memory; print(keep_freed_memory())"
TUNED = ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_"]

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="needs GNU's C library",
)


def printed(program, **variables):
    """What a program prints in a process whose environment tells the allocator these variables alone."""
    environment = {key: value for key, value in os.environ.items() if key not in [*TUNED, "GLIBC_TUNABLES"]}
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, env=environment | variables, capture_output=True, text=True, check=True
    ).stdout


def told(keeps):
    """(whether memory is kept, pages that the system cleared meanwhile)."""
    kept, pages = printed(PROGRAM.format(keeps=keeps)).split()
    return kept == "True", int(pages)


def test_what_is_freed_is_kept_for_what_comes_next():
    assert told(keeps=False)[1] >= 20 * 32  # 20 times 64 MiB, in pages of 2 MiB or smaller ones
    kept, pages = told(keeps=True)
    assert kept
    assert pages < 20


@pytest.mark.parametrize("name", [*TUNED, "GLIBC_TUNABLES"])
def test_what_the_user_has_said_stays(name):
    value = "glibc.malloc.mmap_max=4096" if name == "GLIBC_TUNABLES" else "4096"
    assert printed(KEEPS, **{name: value}) == "False\n"


def test_tunables_of_other_parts_of_the_library_say_nothing_of_memory():
    assert printed(KEEPS, GLIBC_TUNABLES="glibc.pthread.rseq=1") == "True\n"
