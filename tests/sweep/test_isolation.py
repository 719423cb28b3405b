"""Samplers that end, crash or hang the process they run in, or change what is global in it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from support.commands import bench

from bench.sweep.executors.child import ended

PLUGIN = """
import os, random, signal, sys, time
import numpy as np
import torch
from bench import sampler
from bench.plugins import hookimpl


def rule(name, act):
    def walk(model, x, grid, noise):
        for step in grid:
            if step.index == 1:
                x = act(x)
            yield x

    return sampler(name=name)(walk)


def hangs(x):
    while True:
        time.sleep(0.01)


def turns(x):
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(3)
    os.chdir(os.path.dirname(os.getcwd()))
    os.environ["TURNED"] = "1"
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    return x


@sampler(name="learns")
def learns(model, x, grid, noise):
    for step in grid:
        torch.set_grad_enabled(True)
        yield x


@sampler(name="stops-early")
def stops_early(model, x, grid, noise):
    yield x
    yield x


@sampler(name="goes-on")
def goes_on(model, x, grid, noise):
    while True:
        yield x


@hookimpl
def bench_samplers():
    return [
        rule("exits", lambda x: os._exit(3)),
        rule("crashes", lambda x: os.kill(os.getpid(), signal.SIGSEGV)),
        rule("is-killed", lambda x: os.kill(os.getpid(), signal.SIGKILL)),
        rule("hangs", hangs),
        rule("leaves", lambda x: sys.exit(0)),
        rule("outgrows", lambda x: x + torch.empty(2**50)),
        learns,
        stops_early,
        goes_on,
        rule("turns", turns),
        rule("dices", lambda x: x + torch.randn_like(x) * random.random() * np.random.rand()),
    ]
"""

REASONS = {
    "exits": "the process ended with exit status 3",
    "crashes": "the process was killed by signal 11 (SIGSEGV): a crash in native code",
    "is-killed": "the process was killed by signal 9 (SIGKILL): out of memory?",
    "hangs": "it took longer than 2 s; --timeout SECONDS allows another time a step",
    "leaves": "it called sys.exit(0)",
}
BROKEN = {
    "outgrows": "you tried to allocate 4503599627370496 bytes",
    "stops-early": "yielded 2 times in 4 steps; it must yield x once after every step",
    "goes-on": "yielded more than 4 times in 4 steps; it must yield x once after every step",
}
GOOD = ("turns", "learns", "dices", "ddim")


def command(folder, *samplers):
    return (
        *("run", "--model", "exact-gaussian", "--plugin", folder / "bad.py", "--samplers", *samplers),
        *("--steps", "4", "--n", "20", "--batch", "10", "--results", folder / "results"),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("isolation")
    (folder / "bad.py").write_text(PLUGIN)
    return folder


@pytest.fixture(scope="module")
def done(folder):
    return bench(*command(folder, *REASONS, *BROKEN, *GOOD), "--timeout", "2")


def records(results):
    read = [json.loads(path.read_text()) for path in (results / "records").glob("*.json")]
    return {one["sampler"]["name"]: one for one in read if one["sampler"].get("name")}


def test_every_end_of_a_process_is_a_record_with_its_reason(done, folder):
    found = records(folder / "results")
    assert done.returncode == 1, done.stderr
    failed = {name: one for name, one in found.items() if one["status"] == "failed"}
    assert {name: one["message"] for name, one in failed.items() if name not in BROKEN} == REASONS
    assert {found[name]["status"] for name in GOOD} == {"done"}
    for name, reason in REASONS.items():
        assert f"failed: {name} at S=4 ({folder / 'bad.py'}), step 2: {reason}" in done.stderr


def test_a_rule_that_breaks_the_contract_or_runs_out_of_memory_costs_its_own_row(done, folder):
    found = records(folder / "results")
    for name, reason in BROKEN.items():
        assert found[name]["status"] == "failed"
        assert reason in found[name]["message"]
    assert f"{len(REASONS) + len(BROKEN)} of {len(found) + 1} trials failed" in done.stderr


def test_what_was_changed_globally_is_put_back_and_named(done):
    assert (
        "warning: turns changed torch's default dtype, torch's number of threads, the working directory, the"
        " environment, the signal handlers, put back after every block\n"
    ) in done.stderr
    assert (
        "warning: dices changed torch's global generator, Python's global generator, NumPy's global"
        " generator, put back after every block; noise comes from noise(index)\n"
    ) in done.stderr
    assert done.stderr.count("put back after every block") == 2


def test_the_images_are_those_of_one_process_and_only_failures_run_again(done, folder):
    apart = records(folder / "results")
    again = bench(*command(folder, "exits", *GOOD))
    assert "4 of 5 trials are there already" in again.stderr
    fresh = (*command(folder, *GOOD)[:-1], folder / "in-process")
    assert bench(*fresh, "--no-isolate").returncode == 0
    together = records(folder / "in-process")
    for name in GOOD:
        assert together[name]["images"] == apart[name]["images"]
        assert together[name]["scores"] == apart[name]["scores"]


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX's")
@pytest.mark.parametrize("interrupted", [True, False])
def test_no_process_outlives_the_command(folder, interrupted):
    results = folder / f"stopped-{interrupted}"
    arguments = [*command(folder, "ddim", "hangs")[:-1], results]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    _until(lambda: list(results.rglob("*.npz")))  # a block of ddim: the next one hangs
    time.sleep(0.5)
    if interrupted:
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
    else:
        process.kill()
        process.wait(30)
    _until(lambda: not _alive(process.pid))
    assert list(results.rglob("*.npz"))


def _until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def _alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_process_that_cannot_be_started_is_a_sentence(folder, tmp_path):
    """The plugin ends every process but the first one that imports it."""
    plugin = tmp_path / "bad.py"
    plugin.write_text(
        PLUGIN
        + f"\nflag = {str(tmp_path / 'flag')!r}\nif os.path.exists(flag): os._exit(5)\nopen(flag, 'w')\n"
    )
    done = bench(*command(tmp_path, "ddim"))
    assert done.returncode == 1
    assert (
        "error: a worker process cannot be started: the process ended with exit status 5;"
        " --executor serial runs without one"
    ) in done.stderr


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("--timeout", "0"), "--timeout takes seconds above 0, got 0"),
        (("--timeout", "nan"), "--timeout takes seconds above 0, got nan"),
        (("--isolate", "--executor", "serial"), "--executor names who draws: give it, or --isolate"),
        (("--no-isolate", "--device", "cpu,cpu"), "--no-isolate is for one device, got cpu, cpu"),
    ],
)
def test_options_that_contradict_are_refused(tmp_path, given, sentence):
    done = bench("run", "--model", "exact-gaussian", *given, "--results", tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_an_unknown_signal_is_told_by_its_number():
    assert ended(-63) == "the process was killed by signal 63"
