"""Several runs in one results folder: each block drawn once, whoever draws it, to the bits of one run."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from support.sweeps import Silent
from torch.distributed.run import get_args_parser

from bench import sampler
from bench.catalog import Origin
from bench.commands.options import parse_shard
from bench.commands.parser import command_parser
from bench.commands.together import at_work
from bench.errors import UsageError
from bench.files.claims import claim
from bench.metrics.measuring import measure_references
from bench.metrics.pixels import Pixels
from bench.nll.request import BoundRequest
from bench.nll.runner import BoundRunner
from bench.plugins.loading import registry
from bench.records.ledger import block_folder
from bench.records.merging import differing, merge
from bench.records.running import Run
from bench.records.sharing import Share
from bench.records.store import Store
from bench.sweep.request import Sweep
from bench.sweep.rounds import Rounds, Rule
from bench.sweep.runner import Runner

N, BATCH, STEPS = 60, 5, (2, 4, 5)
BLOCKS = len(STEPS) * N // BATCH
LOG = "COUNTED_DRAWS"


def noted(*what):
    """Note who draws what; the file beside the log that lets samplers go on which wait for it."""
    with open(os.environ[LOG], "a") as log:
        print(os.getpid(), *what, file=log)
    return Path(f"{os.environ[LOG]}-go")


@sampler(source="none")
def counted(model, x, grid, noise, *, row: int = 1):
    """Note who draws which block, and take a while for each step."""
    noted(row, len(grid), sha256(x.numpy().tobytes()).hexdigest())
    for step in grid:
        time.sleep(0.01)
        x = x - 0.1 * model(x, step.times(x)).eps
        yield x


@sampler(source="none")
def waiting(model, x, grid, noise, *, breaks: bool = False):
    """Note who draws, wait, and break where that is asked for."""
    until(noted("waiting").exists)
    if breaks:
        raise ValueError("it broke")
    for _ in grid:
        yield x


class LetsGoOn(Silent):
    """Lets those that it waits for go on."""

    def waiting(self, runs):
        super().waiting(runs)
        Path(f"{os.environ[LOG]}-go").touch()


PLUGIN = f"""
import os, time
from bench import sampler
from bench.plugins import hookimpl


@sampler(name="noting", source="none")
def noting(model, x, grid, noise):
    with open(os.environ["{LOG}"], "a") as log:
        print(os.getpid(), len(grid), x.sum().item(), file=log)
    for step in grid:
        time.sleep(0.3)
        yield x


@hookimpl
def bench_samplers():
    return [noting]
"""


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    for made in (counted, waiting):
        monkeypatch.setitem(registry().samplers.entries, made.name, made)
        monkeypatch.setitem(registry().samplers.origins, made.name, Origin("a test", ""))
    return tmp_path / "log"


def sweep(**changes):
    asked = {"model": "exact-gaussian", "samplers": (counted,), "steps": STEPS, "n": N, "batch": BATCH}
    return Sweep(**asked | changes)


def run(folder, seen=None, **changes):
    runner, seen = Runner(sweep(**changes), Store(folder)), seen or Silent()
    return [*runner.run(runner.plan(), seen), runner.floor()], seen


def rounds(folder):
    samplers = counted, counted.with_(row=2)
    asked = sweep(samplers=samplers, steps=(2,), n=1000, batch=100)
    return Rounds(Runner(asked, Store(folder)), Rule(se=1e-6)).run(lambda: nullcontext(Silent()))


@contextmanager
def started(count, work, *arguments):
    """Do some work in processes of their own, all at once; whatever is left of them in the end is ended."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=arguments) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join()


def ended(processes):
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def draws(log):
    return [line.split(" ", 1) for line in log.read_text().splitlines()] if log.exists() else []


def until(condition):
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def assert_same(one, other):
    """Hold the records of two folders, their pictures and films to be equal to the bit, times aside."""
    left, right = ({r.key: r for r in Store(folder).read()[0]} for folder in (one, other))
    assert left.keys() == right.keys()
    for key in left:
        assert differing(left[key], right[key]) == []
        assert left[key].images == right[key].images
    pictures = [{p.name: p.read_bytes() for p in folder.rglob("*.png")} for folder in (one, other)]
    assert pictures[0] == pictures[1]


def test_three_runs_draw_every_block_once_and_end_with_the_records_of_one(tmp_path, log):
    run(tmp_path / "alone")
    assert len(draws(log)) == BLOCKS
    log.unlink()
    with started(3, run, tmp_path / "together") as processes:
        assert ended(processes) == [0, 0, 0]
    blocks = Counter(block for _, block in draws(log))
    assert len(blocks) == BLOCKS
    assert set(blocks.values()) == {1}
    assert {int(pid) for pid, _ in draws(log)} == {process.pid for process in processes}
    assert_same(tmp_path / "alone", tmp_path / "together")
    assert sorted(path.name for path in (tmp_path / "together").iterdir()) == ["records"]


def test_the_work_of_a_run_that_is_killed_is_taken_over(tmp_path, log):
    run(tmp_path / "alone")
    log.unlink()
    with started(3, run, tmp_path / "together") as (killed, *others):
        until(lambda: sum(int(pid) == killed.pid for pid, _ in draws(log)) > 3)
        os.kill(killed.pid, signal.SIGKILL)
        assert ended(others) == [0, 0]
    blocks = Counter(block for _, block in draws(log))
    assert len(blocks) == BLOCKS
    assert sum(blocks.values()) <= BLOCKS + 1  # the one that it was at
    assert_same(tmp_path / "alone", tmp_path / "together")
    assert [path.name for path in (tmp_path / "together").iterdir() if path.name != "running"] == ["records"]
    assert Store(tmp_path / "together").running.others() == []


def test_runs_in_rounds_share_each_round(tmp_path, log):
    rounds(tmp_path / "alone")
    log.unlink()
    with started(2, rounds, tmp_path / "together") as processes:
        assert ended(processes) == [0, 0]
    blocks = Counter(block for _, block in draws(log))
    assert len(blocks) == 2 * (3 + 3 + 5)  # of 250, 500 and 1,000 samples, each from where the last ended
    assert set(blocks.values()) == {1}
    assert len({pid for pid, _ in draws(log)}) == 2
    assert_same(tmp_path / "alone", tmp_path / "together")


class Calls(Silent):
    """Note every network call of a bound."""

    def planned(self, plan, calls):
        self.announced = calls

    def called(self, t):
        noted("call")
        time.sleep(0.01)


def bounds(folder):
    seen = Calls()
    BoundRunner(BoundRequest("exact-gaussian", steps=(4, 9), n=30, batch=2), Store(folder)).run(seen)
    return seen.announced


def test_bounds_are_evaluated_once_by_whichever_run(tmp_path, log):
    calls = bounds(tmp_path / "alone")
    log.unlink()
    with started(3, bounds, tmp_path / "together") as processes:
        assert ended(processes) == [0, 0, 0]
    assert len(draws(log)) == calls
    assert len({pid for pid, _ in draws(log)}) == 3
    assert_same(tmp_path / "alone", tmp_path / "together")


def test_a_run_says_of_another_what_it_is_at_and_waits_for_it(tmp_path, log):
    asked = {"samplers": (waiting,), "steps": (2,), "n": 10, "batch": 10}
    with started(1, lambda: run(tmp_path, **asked)) as (first,):
        until(lambda: draws(log))
        (other,) = Store(tmp_path).running.others()
        assert str(other).startswith(f"process {first.pid} on {os.uname().nodename}, since 20")
        assert str(other).endswith(", at waiting breaks=False at S=2")
        (record, _), seen = run(tmp_path, LetsGoOn(), **asked)
    assert [one.pid for one in seen.waited] == [first.pid]
    assert (record.status, seen.samples, len(draws(log))) == ("done", 10, 1)


def test_a_failure_is_made_once_and_known_to_both(tmp_path, log):
    asked = {"samplers": (waiting.with_(breaks=True),), "steps": (2,), "n": 10, "batch": 10}
    with started(1, lambda: run(tmp_path, **asked)) as (first,):
        until(lambda: draws(log))
        (record, _), _ = run(tmp_path, LetsGoOn(), **asked)
        assert ended([first]) == [0]
    assert (record.status, record.message, len(draws(log))) == ("failed", "ValueError: it broke", 1)
    assert not (tmp_path / "blocks").exists()
    (again, _), _ = run(tmp_path, **asked)  # a failure of before is tried again
    assert (again.status, len(draws(log))) == ("failed", 2)


def test_a_block_that_is_damaged_is_drawn_again(tmp_path, log):
    with started(1, run, tmp_path) as (first,):
        until(lambda: len(list(tmp_path.glob("blocks/*/*.npz"))) > 3)
        first.kill()
    for path in tmp_path.glob("blocks/*/*.npz"):
        path.write_bytes(b"half")
    (*records, _), _ = run(tmp_path)
    assert [record.status for record in records] == ["done"] * len(STEPS)


def test_a_claim_is_of_one_process_and_free_when_it_ends(tmp_path):
    def hold():
        mine = claim(tmp_path / "a.lock")
        (tmp_path / "held").touch()
        time.sleep(60)
        mine.release()

    with started(1, hold) as (holder,):
        until((tmp_path / "held").exists)
        assert claim(tmp_path / "a.lock") is None
        holder.kill()
        until(lambda: not holder.is_alive())
        mine = claim(tmp_path / "a.lock")
    assert mine is not None
    mine.release()
    assert not (tmp_path / "a.lock").exists()


def test_what_a_machine_that_is_gone_has_left_holds_nobody_up(tmp_path, log):
    """Files of claims and of a run on another host: nobody holds them, whatever their names say."""
    run(tmp_path / "alone")
    log.unlink()
    here = tmp_path / "here"
    runner, store = Runner(sweep(), Store(here)), Store(here)
    gone = Run(
        time.time() - 60, "gone", os.getpid(), "", "counted row=1 at S=2"
    )  # a process that is here, too
    left = [here / "running" / "gone-1-00000000.json", here / "running" / "gone-1-00000000.lock"]
    for cell in runner.plan().pending:
        folder = block_folder(store, cell)
        names = [f"{block.start:08d}-{block.stop:08d}" for block in cell.trial.blocks]
        left += [folder / f"{name}.lock" for name in (*names, "end")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(gone)) if path.suffix == ".json" else "")
    assert store.running.others() == []
    _, seen = run(here)
    assert not hasattr(seen, "waited")
    assert len(draws(log)) == BLOCKS
    assert_same(tmp_path / "alone", here)
    assert [path.name for path in here.iterdir() if path.name != "running"] == ["records"]


def test_where_there_are_no_locks_every_run_does_its_own(tmp_path, log, monkeypatch):
    def acquire(lock, **given):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("bench.files.claims.FileLock.acquire", acquire)
    with pytest.warns(UserWarning, match="has no locks: .* --shard I/N gives each its own part"):
        records, _ = run(tmp_path)
    assert [record.status for record in records] == ["done"] * (len(STEPS) + 1)


def test_a_record_with_other_provenance_ends_no_trial_here(tmp_path, log):
    runner = Runner(sweep(steps=(2,)), Store(tmp_path))
    (cell,) = runner.plan().pending
    run(tmp_path, steps=(2,))
    record = next(iter(Store(tmp_path).read()[0]))
    path = tmp_path / "records" / f"{record.name}.json"
    with Share(Store(tmp_path), [cell]) as share:
        assert share.ended(cell) == share.ended(cell) == record
    fields = json.loads(path.read_text())
    fields["provenance"]["weights"] = "others"
    path.write_text(json.dumps(fields))
    with Share(Store(tmp_path), [cell]) as share:
        assert share.ended(cell) is None


def test_shards_in_folders_of_their_own_merge_to_the_whole(tmp_path, log):
    run(tmp_path / "whole")
    for place in (1, 2):
        run(tmp_path / str(place), shard=(place, 2))
    parts = [{r.key for r in Store(tmp_path / str(k)).read()[0] if r.kind == "samples"} for k in (1, 2)]
    assert [len(part) for part in parts] == [2, 1]
    assert not parts[0] & parts[1]
    assert not merge([tmp_path / "1", tmp_path / "2"], tmp_path / "merged").conflicts
    assert_same(tmp_path / "whole", tmp_path / "merged")


def test_a_reference_is_measured_once(tmp_path):
    images = torch.randint(256, (64, 1, 4, 4), dtype=torch.uint8)

    class Counted(Pixels):
        def __call__(self, images):
            with open(tmp_path / "log", "a") as log:
                log.write("x")
            time.sleep(0.05)
            return super().__call__(images)

    def measure():
        measure_references(images, [(Counted((1, 4, 4)), "moments")], batch=16, cache=tmp_path / "cache")

    with started(3, measure) as processes:
        assert ended(processes) == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "xxxx"
    assert not list(tmp_path.rglob("*.lock"))


@pytest.mark.parametrize("text", ["0/4", "5/4", "two", "1/0", "-1/2", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="--shard takes I/N with I from 1 to N, as in 1/4 to 4/4, got"):
        parse_shard(text)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (None, Rule(tie=0.1), None),
        (Rule(tie=0.1), None, None),
        (Rule(tie=0.1), Rule(tie=0.1), None),
        (Rule(tie=0.1), Rule(tie=0.2), "draws in rounds in this folder, --until-tie 0.1: trials that both"),
        (Rule(budget=9), Rule(budget=9), "draws in rounds in this folder, --budget 9s: trials that both"),
    ],
)
def test_runs_in_rounds_join_those_that_come_to_the_same_end(tmp_path, capsys, first, second, told):
    with at_work(Store(tmp_path), first):
        refused = pytest.raises(UsageError, match=told) if told else nullcontext()
        with refused, at_work(Store(tmp_path), second):
            assert f"the work is shared with process {os.getpid()} on" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_torchrun_takes_no_option_of_a_run_for_its_own():
    theirs = [name for action in get_args_parser()._actions for name in action.option_strings]
    ours = [name for action in command_parser("run")._actions for name in action.option_strings]
    taken = {name for name in ours if name.startswith("--") and any(own.startswith(name) for own in theirs)}
    assert taken <= {"--n", "--log", "--help"}  # the first two have another name that it leaves alone
    assert {"--samples", "--tracker"} <= set(ours) - taken


def torchrun(folder):
    """Two processes of torchrun that draw the blocks of two trials."""
    (folder / "noting.py").write_text(PLUGIN)
    start = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "bench", "run")
    asked = ("--model", "exact-gaussian", "--samplers", "noting", "--steps", "2,4", "--samples", "20")
    where = ("--batch", "5", "--no-isolate", "--plugin", folder / "noting.py", "--results", folder / "r")
    return subprocess.Popen(
        [*map(str, start + asked + where)],
        env={**os.environ, LOG: str(folder / "log")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_processes_that_torchrun_starts_share_the_work_and_the_first_tells(tmp_path):
    done = torchrun(tmp_path)
    told, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors
    blocks = Counter(block for _, block in draws(tmp_path / "log"))
    assert len(blocks) == 2 * 20 // 5
    assert set(blocks.values()) == {1}
    assert len({pid for pid, _ in draws(tmp_path / "log")}) == 2
    assert told.count("3 records in") == 1
    assert errors.count("[2/2]") == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_process_of_torchrun_that_is_killed_costs_its_block(tmp_path):
    """Torchrun ends the other one too; the same command goes on."""
    log = tmp_path / "log"
    done = torchrun(tmp_path)
    until(lambda: len({pid for pid, _ in draws(log)}) == 2 and list((tmp_path / "r").rglob("*.npz")))
    os.kill(int(draws(log)[-1][0]), signal.SIGKILL)
    done.communicate(timeout=300)
    assert done.returncode == 1
    again = torchrun(tmp_path)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    blocks = Counter(block for _, block in draws(log))
    assert len(blocks) == 2 * 20 // 5
    assert sum(blocks.values()) <= len(blocks) + 2  # the one that each was at
