"""Blocks drawn in jobs: of this machine, and of commands that stand for SLURM's; one job is killed."""

import os
import signal
import sys
import time
from functools import partial

import pytest
from support.clusters import drawn, is_alive, plugin_folder, records, start, sweep, until
from support.commands import bench
from support.slurm import install

from bench.errors import BenchError, UsageError
from bench.records.trial import Task, Trial
from bench.sweep.executors.seat import Seat
from bench.sweep.executors.submitit import Desk, Submitit, _Jobs, draw_blocks, in_chunks

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'sampler-bench[submitit]'")

N, BATCH = 60, 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return plugin_folder(tmp_path_factory, "submitit")


command = partial(sweep, n=N, batch=BATCH)


@pytest.fixture(scope="module")
def alone(folder):
    done = bench(*command(folder, "alone", "slow"), "--executor", "serial", SAMPLER_BENCH_PAUSE="0")
    assert done.returncode == 0, done.stderr
    (folder / "slow.log").unlink()
    return records(folder / "alone")["slow"]


def test_jobs_of_this_machine_draw_what_one_process_draws(folder, alone):
    where = f"cluster=local,jobs=2,folder={folder / 'jobs'}"
    asked = (*command(folder, "local", "slow", "exits"), "--executor", "submitit", "--slurm", where)
    done = bench(*asked, SAMPLER_BENCH_PAUSE="0")
    assert done.returncode == 1, done.stderr
    found = records(folder / "local")
    assert found["slow"]["images"] == alone["images"]
    assert found["slow"]["scores"] == alone["scores"]
    assert found["exits"]["message"] == "the process ended with exit status 3"
    assert 2 <= len(drawn(folder, "exits")) <= 6  # twice, and what was under way until that was known
    assert not any((folder / "jobs").iterdir())  # nothing was lost: nothing is kept
    (folder / "slow.log").unlink()


@pytest.fixture(scope="module")
def slurm(folder):
    place = folder / "bin"
    place.mkdir()
    return install(place, sys.executable)


def test_a_job_of_slurm_that_is_killed_costs_time_alone(folder, slurm, alone, monkeypatch):
    monkeypatch.setenv("PATH", f"{slurm}{os.pathsep}{os.environ['PATH']}")
    options = f"partition=short,time=0:30:00,jobs=2,folder={folder / 'jobs'}"
    process = start(*command(folder, "slurm", "slow"), "--executor", "submitit", "--slurm", options)
    job = until(lambda: (two := sorted(slurm.glob("pid-*"))) and len(two) == 2 and two[1])
    seen = until(lambda: {parent for *_, parent in drawn(folder, "slow")})
    pid = int(job.read_text())
    (slurm / f"killed-{job.name[4:]}").touch()
    os.killpg(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert seen
    found = records(folder / "slurm")["slow"]
    assert found["images"] == alone["images"]
    assert found["scores"] == alone["scores"]
    assert "a job was lost, its blocks are handed in again: job 1000_1 NODE_FAIL" in errors
    script = (slurm / "script.sh").read_text()
    for line in ("--partition=short", "--time=0:30:00", "--job-name=sampler-bench"):
        assert f"#SBATCH {line}\n" in script


def test_a_driver_that_is_terminated_takes_its_jobs_with_it(folder, slurm, alone, monkeypatch):
    monkeypatch.setenv("PATH", f"{slurm}{os.pathsep}{os.environ['PATH']}")
    (folder / "slow.log").unlink(missing_ok=True)
    results = folder / "terminated"
    asked = (*command(folder, results, "slow"), "--executor", "submitit")
    process = start(*asked, "--slurm", f"jobs=2,folder={folder / 'jobs'}")
    until(lambda: list(results.rglob("*.npz")))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 143
    assert errors.endswith("stopped; what is done is kept, the same command goes on from here\n")
    every = {one for _, *both in drawn(folder, "slow") for one in both}
    until(lambda: not any(map(is_alive, every)))
    there = len(list(results.rglob("*.npz")))
    (folder / "slow.log").unlink()
    again = bench(*command(folder, results, "slow"), SAMPLER_BENCH_PAUSE="0")
    assert again.returncode == 0, again.stderr
    assert len(drawn(folder, "slow")) == N // BATCH - there
    assert records(results)["slow"]["images"] == alone["images"]


@pytest.mark.parametrize("sign", ["gone", "old"])
def test_a_job_whose_driver_is_gone_draws_no_further_block(tmp_path, monkeypatch, sign):
    """A driver that was killed tells nobody; the job sees that it touches its file no more."""
    monkeypatch.setattr("bench.sweep.executors.submitit.ORPHAN", 0.2)
    monkeypatch.setattr(Seat, "settle", lambda *given: BenchError("it was asked to draw"))
    if sign == "old":
        (tmp_path / "driver").touch()
    tasks = dict(enumerate([Task(trial(4), block) for block in trial(4).blocks]))
    desk = Desk(tmp_path, None, "cpu", 1, str(tmp_path), {})
    wait = time.sleep
    monkeypatch.setattr("bench.sweep.executors.submitit.write_atomically", lambda *given: wait(0.3))
    asked = []
    monkeypatch.setattr(
        "bench.sweep.executors.submitit._mark", lambda share, task: asked.append(task) or share / "none"
    )
    draw_blocks(desk, tasks)
    assert len(asked) == {"gone": 0, "old": 1}[sign] < len(tasks)


def test_sbatch_that_refuses_is_a_sentence(folder, slurm, monkeypatch):
    monkeypatch.setenv("PATH", f"{slurm}{os.pathsep}{os.environ['PATH']}")
    (slurm / "refusal").write_text("sbatch: error: invalid partition specified: gpuu")
    options = f"partition=gpuu,folder={folder / 'jobs'}"
    done = bench(*command(folder, "refused", "slow"), "--executor", "submitit", "--slurm", options)
    (slurm / "refusal").unlink()
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: the jobs cannot be handed in: ")
    assert "invalid partition specified: gpuu" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cluster": "moon"}, "--slurm cluster= takes slurm or local, got moon"),
        ({"cluster": "local", "jobs": "0"}, "--slurm jobs= takes a whole number from 1 on, got 0"),
        ({"cluster": "local", "blocks": "x"}, "--slurm blocks= takes a whole number from 1 on, got x"),
        (
            {"cluster": "local", "partition": "gpu"},
            "--slurm cluster=local takes no options of sbatch, got partition",
        ),
        (
            {},
            "sbatch is not on this machine; start the sweep on a login node of the SLURM cluster, or try it"
            " here with --slurm cluster=local",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(options, sentence, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError) as told:
        Submitit().with_options(options)
    assert str(told.value) == sentence


def test_without_submitit_the_user_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr("bench.sweep.executors.submitit.find_spec", lambda name: None)
    with pytest.raises(UsageError) as told:
        Submitit().with_options({})
    assert str(told.value) == "--executor submitit needs submitit: pip install 'sampler-bench[submitit]'"


def test_a_job_asks_for_a_gpu_unless_the_user_does(slurm, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", f"{slurm}{os.pathsep}{os.environ['PATH']}")

    def script(device, options):
        executor = Submitit().with_options({**options, "folder": str(tmp_path)})
        jobs = _Jobs(executor, None, device, [Task(trial(4), range(10))], lambda task: True)
        return jobs._submitter()._make_submission_file_text("command", "uid")

    assert not any(f"#SBATCH --{one}" in script("cpu", {}) for one in ("gpu", "gres"))
    assert "#SBATCH --gpus-per-node=1\n" in script("cuda:0", {})
    assert "#SBATCH --time=1:00:00\n" in script("cuda:0", {})
    asked = script("cuda:0", {"gres": "gpu:a100:1", "time": "10", "mem-per-cpu": "4G", "exclusive": "true"})
    assert "gpus-per-node" not in asked
    for line in ("gres=gpu:a100:1", "time=10", "mem-per-cpu=4G", "exclusive"):
        assert f"#SBATCH --{line}\n" in asked


def trial(steps):
    return Trial("m", "ddim", "uniform", steps, 40, 0, 10, "float32", "cpu", ("fid",))


def test_jobs_get_about_as_many_steps_each():
    tasks = [Task(trial(steps), block) for steps in (10, 20, 50, 100) for block in trial(steps).blocks]
    chunks = in_chunks(list(enumerate(tasks)), 4, None)
    assert len(chunks) == 4
    assert [number for chunk in chunks for number in chunk] == list(range(16))
    loads = [sum(task.trial.steps for task in chunk.values()) for chunk in chunks]
    assert sum(loads) == 720
    assert max(abs(load - 180) for load in loads) <= 50  # half the greatest block
    assert [len(chunk) for chunk in in_chunks(list(enumerate(tasks)), 4, 5)] == [5, 5, 5, 1]
    assert len(in_chunks(list(enumerate(tasks)), 64, None)) == 16
