"""Files appear whole or not at all, and what a killed writer left is gone once somebody writes again."""

import signal
import subprocess
import sys

from bench.files.atomic import temporary, write_atomically

KILLED = """
import os, signal, sys
from pathlib import Path
from bench.files.atomic import temporary

with temporary(Path(sys.argv[1])) as part:
    part.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_goes_and_what_a_live_one_writes_stays(tmp_path):
    path = tmp_path / f"{'long' * 50}.txt"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)])
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".") and left.suffix == ".tmp"
    foreign = tmp_path / ".x.0123abcd-999999999-01234567.tmp"  # of another machine
    foreign.write_text("")
    with temporary(path) as mine:
        mine.write_text("mine")
        write_atomically(tmp_path / "other.txt", b"whole")
        assert mine.read_text() == "mine"
        assert set(tmp_path.iterdir()) == {mine, foreign, tmp_path / "other.txt"}
