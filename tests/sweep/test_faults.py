"""What ends a sweep from outside, and disks that refuse: the same command ends it as if nothing had been."""

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace

import pytest
from support.clusters import drawn, plugin_folder, records, sweep, until
from support.commands import bench
from support.sweeps import Silent

from bench import get_sampler
from bench.commands.stopping import STOPPED, ended_in_order
from bench.records.store import Store
from bench.sweep.executors.child import Child
from bench.sweep.request import Sweep
from bench.sweep.runner import Runner

N, BATCH = 60, 10
SMALL_DISK = """
mount -t tmpfs -o "$1" none "$2" || exit 77
disk=$2 out=$3
shift 3
"$@"
status=$?
cp -r "$disk/." "$out"
exit $status
"""
"""Run a command that has a small disk to write to, and keep what was written: OPTIONS DISK OUT COMMAND..."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return plugin_folder(tmp_path_factory, "faults")


command = partial(sweep, n=N, batch=BATCH)


@pytest.fixture(scope="module")
def alone(folder):
    """The record of a sweep that nothing happened to."""
    done = bench(*command(folder, folder / "alone"), "--executor", "serial", SAMPLER_BENCH_PAUSE="0")
    assert done.returncode == 0, done.stderr
    return records(folder / "alone")["slow"]


def kept(results):
    return len(list(results.rglob("*.npz")))


def assert_it_goes_on(folder, results, alone):
    """The same command draws what was not kept, once, and ends with the record of a sweep left alone."""
    assert "slow" not in records(results)  # in particular none of a failure
    (folder / "slow.log").unlink(missing_ok=True)
    there = kept(results)
    done = bench(*command(folder, results), SAMPLER_BENCH_PAUSE="0")
    assert done.returncode == 0, done.stderr
    blocks = [total for total, *_ in drawn(folder, "slow")]
    assert len(set(blocks)) == len(blocks) == N // BATCH - there
    found = records(results)["slow"]
    assert found["images"] == alone["images"]
    assert found["scores"] == alone["scores"]


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX's")
@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (["SIGINT"] * 9, {130, -signal.SIGINT}),  # a shell tells both as 130
        (["SIGTERM"], {143}),
        (["SIGHUP"], {129}),
    ],
)
def test_a_command_that_is_stopped_says_so_and_goes_on(folder, alone, sent, statuses):
    """Sent to all processes, as a terminal, a scheduler and a shutdown do."""
    results = folder / f"stopped-{sent[0]}"
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *map(str, command(folder, results))],
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # ignored where nohup runs the tests
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: kept(results) > 1)
    for name in sent:
        try:
            os.killpg(process.pid, getattr(signal, name))
        except ProcessLookupError:
            break
        time.sleep(0.05)
    _, errors = process.communicate(timeout=300)
    assert process.returncode in statuses, errors
    assert errors.endswith(f"\n{STOPPED}\n")
    assert "Traceback" not in errors
    assert 1 < kept(results) < N // BATCH
    assert_it_goes_on(folder, results, alone)


INTERRUPTED = """
import os, signal, sys


class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)


sys.meta_path.insert(0, Finder())
sys.argv = ["bench", "list"]
from bench.commands.main import main
sys.exit(main())
"""
"""Ctrl-C while the command imports its libraries, which take an interrupt for an error of their own."""


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_command_that_is_stopped_while_it_starts_says_so():
    asked = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"\n{STOPPED}\n")


def test_a_worker_that_is_terminated_with_its_command_is_no_failure():
    """Its end may be seen before the command's own signal comes."""
    child = Child(None, "cpu", 1)
    child._process = SimpleNamespace(exitcode=-signal.SIGTERM, kill=lambda: None)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        child._ended()
    timer.join()
    assert child._ended() == "the process was killed by signal 15 (SIGTERM)"


@pytest.mark.skipif(os.name != "posix", reason="processes are forked on POSIX alone")
def test_a_process_that_a_plugin_forks_and_terminates_ends_as_it_would_elsewhere():
    forking = multiprocessing.get_context("fork")
    running = forking.Event()
    with ended_in_order():
        process = forking.Process(target=lambda: (running.set(), time.sleep(600)))
        process.start()
        assert running.wait(60)  # Python forgets signals that come while it forks
        process.terminate()
        process.join(60)
    assert process.exitcode == -signal.SIGTERM


@functools.cache
def can_mount():
    try:
        asked = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def on_small_disk(folder, name, options):
    """Run the command with results on a disk of its own; return it and a copy of what it left there."""
    if not can_mount():
        pytest.skip("no file system can be mounted here")
    disk, out = folder / f"{name}-disk", folder / name
    disk.mkdir()
    out.mkdir()
    asked = [sys.executable, "-m", "bench", *command(folder, disk / "results")]
    done = subprocess.run(
        [*("unshare", "-rm", "sh", "-c", SMALL_DISK, "sh", options, disk, out), *map(str, asked)],
        env={**os.environ, "SAMPLER_BENCH_PAUSE": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done, disk / "results", out / "results"


def test_a_full_disk_is_a_sentence_and_the_command_goes_on_when_there_is_room(folder, alone):
    done, results, copy = on_small_disk(folder, "full", "size=200k")
    assert done.returncode == 1
    told = done.stderr.splitlines()[-1]
    assert told.startswith(f"error: No space left on device ({results / 'blocks'}")
    assert told.endswith("; what is done is kept: mend that and give the same command again")
    assert 0 < kept(copy) < N // BATCH
    assert_it_goes_on(folder, copy, alone)
    assert not list(copy.rglob("*.tmp"))


def test_a_folder_that_is_read_only_is_a_sentence_before_anything_is_drawn(folder):
    (folder / "slow.log").unlink(missing_ok=True)
    done, results, _ = on_small_disk(folder, "read-only", "ro")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: cannot write results to {results}: Read-only file system; choose --results DIR"
    ]
    assert not drawn(folder, "slow")


def sweep(folder, observer):
    runner = Runner(Sweep("exact-gaussian", (get_sampler("ddim"),), (4,), N, batch=BATCH), Store(folder))
    return runner.run(runner.plan(), observer)


def test_a_record_is_on_the_disk_before_its_blocks_are_dropped(tmp_path, monkeypatch):
    """What a loss of power finds: its content first, then its name, then no blocks."""
    happened, sync = [], os.fsync

    def synced(file):
        happened.append(os.fstat(file).st_ino)
        sync(file)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr("bench.records.store.drop_blocks", lambda *which: happened.append("dropped"))
    sweep(tmp_path, Silent())
    (record,) = (tmp_path / "records").glob("*.json")
    wanted = [record.stat().st_ino, record.parent.stat().st_ino, "dropped"]
    assert happened[-3:] == wanted
    for picture in record.parent.glob("*.png"):
        assert picture.stat().st_ino in happened


class Killed(BaseException):
    """Nothing catches it, and nothing of the sweep comes after it."""


def kill(*given, **named):
    raise Killed


def test_a_kill_between_the_last_block_and_the_record_costs_no_block(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("bench.records.store.write_text", kill)
        with pytest.raises(Killed):
            sweep(tmp_path, Silent())
    there = kept(tmp_path)
    assert there > 0
    monkeypatch.setattr("bench.sweep.executors.serial.worker", kill)  # whoever draws
    (record,) = sweep(tmp_path, Silent())
    assert record.status == "done"
    assert kept(tmp_path) == 0


def test_a_kill_between_the_record_and_its_blocks_leaves_none_of_them(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("bench.records.store.drop_blocks", kill)
        with pytest.raises(Killed):
            sweep(tmp_path, Silent())
    assert kept(tmp_path) > 0
    monkeypatch.setattr("bench.sweep.executors.serial.worker", kill)  # whoever draws
    (record,) = sweep(tmp_path, Silent())
    assert record.status == "done"
    assert kept(tmp_path) == 0
