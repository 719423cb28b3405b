"""The executor ``submitit``: jobs of SLURM, each of which draws some of the blocks.

Jobs and driver share a folder. A job writes what becomes of each block there as soon as it is known, so that
a job that is killed, or runs into its time limit, loses one block at most; the driver alone writes records.
"""

from __future__ import annotations

import os
import pickle
import shutil
import time
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from bench.errors import BenchError, UsageError, one_line
from bench.files.atomic import write_atomically
from bench.hooks import hookimpl
from bench.metrics.reference import cache_folder
from bench.plugins.executor import Executor, Outcome
from bench.records.trial import Failure, Task, WorkerSetup
from bench.sweep.executors.seat import LOST, Answer, Seat, shared_environment

LOOK = 1.0
"""Seconds between two looks at the folder."""

ACCOUNTING = 60.0
"""Seconds between two questions to SLURM's accounting about jobs that wrote no end."""

ORPHAN = 600.0
"""Seconds without a sign of the driver after which a job begins no further block."""

STARTS = 2
"""Jobs that may end before any block is drawn: after these the next one would not draw either."""

DEFAULTS = {"time": "1:00:00", "job_name": "sampler-bench"}
"""What sbatch is told where the user says nothing."""

GPUS = ("gpus", "gres", "gpus_per_node", "gpus_per_task")
"""Options of sbatch by which a user asks for GPUs; where none is given a job on CUDA devices gets one."""

OWN = ("cluster", "jobs", "blocks", "folder")
"""Options that are not sbatch's."""


@dataclass(frozen=True)
class Submitit:
    """Draws in jobs that submitit hands to SLURM, or with ``cluster=local`` in processes of this machine.

    Attributes:
        cluster: ``slurm`` or ``local``.
        jobs: most jobs at a time.
        blocks: blocks a job; where None the jobs share the steps that are to be taken alike.
        folder: where jobs and driver meet, on a file system that all machines share.
        sbatch: options of sbatch by name, with ``_`` for ``-``.
    """

    cluster: str = "slurm"
    jobs: int = 64
    blocks: int | None = None
    folder: Path | None = None
    sbatch: Mapping[str, str] = field(default_factory=dict)
    name = "submitit"
    elsewhere = True

    def with_options(self, options: Mapping[str, str]) -> Executor:
        """Return it for what ``--slurm`` was given; see `bench.plugins.executor.Configurable`."""
        if find_spec("submitit") is None:
            raise UsageError("--executor submitit needs submitit: pip install 'sampler-bench[submitit]'")
        given = {key.replace("-", "_"): value for key, value in options.items()}
        own = {key: given.pop(key) for key in OWN if key in given}
        cluster = own.get("cluster", self.cluster)
        if cluster not in ("slurm", "local"):
            raise UsageError(f"--slurm cluster= takes slurm or local, got {cluster}")
        if cluster == "local" and given:
            raise UsageError(f"--slurm cluster=local takes no options of sbatch, got {', '.join(given)}")
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise UsageError(
                "sbatch is not on this machine; start the sweep on a login node of the SLURM cluster, or try"
                " it here with --slurm cluster=local"
            )
        return replace(
            self,
            cluster=cluster,
            jobs=_count("jobs", own["jobs"]) if "jobs" in own else 1 if cluster == "local" else self.jobs,
            blocks=_count("blocks", own["blocks"]) if "blocks" in own else None,
            folder=Path(own["folder"]) if "folder" in own else None,
            sbatch=given,
        )

    def run(
        self,
        tasks: Sequence[Task],
        setup: WorkerSetup,
        devices: Sequence[str],
        wanted: Callable[[Task], bool],
    ) -> Iterator[tuple[Task, Outcome]]:
        """Run the tasks in jobs, some of them each; see `bench.plugins.executor.Executor.run`."""
        if len(devices) > 1:
            raise UsageError(f"a job draws on one device, got {', '.join(devices)}; give --device cuda")
        if tasks:
            jobs = _Jobs(self, setup, devices[0], tasks, wanted)
            try:
                yield from jobs.outcomes()
            finally:
                jobs.end()


def _count(key: str, text: str) -> int:
    """Return a number from 1 on.

    Raises:
        UsageError: if the text is none.
    """
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--slurm {key}= takes a whole number from 1 on, got {text}")
    return int(text)


def in_chunks(tasks: Sequence[tuple[int, Task]], jobs: int, blocks: int | None) -> list[dict[int, Task]]:
    """Return tasks in order, shared out to jobs.

    Args:
        tasks: (number, task) of each.
        jobs: into how many at most.
        blocks: tasks of each; where None each gets about as many steps as the others.
    """
    if blocks is not None:
        return [dict(tasks[first : first + blocks]) for first in range(0, len(tasks), blocks)]
    chunks: dict[int, dict[int, Task]] = {}
    whole, before = sum(task.trial.steps for _, task in tasks), 0
    for number, task in tasks:  # to the job in whose share of the steps the middle of the task lies
        chunk = jobs * (2 * before + task.trial.steps) // (2 * whole)
        chunks.setdefault(chunk, {})[number] = task
        before += task.trial.steps
    return list(chunks.values())


@dataclass(frozen=True)
class Desk:
    """What a job needs beside its blocks; picklable.

    Attributes:
        share: folder that it shares with the driver, which tells what is not wanted any more.
        setup: what it draws with.
        device: a torch device.
        threads: torch's threads; where None as many as SLURM gives the job CPUs.
        folder: working folder of the driver.
        environment: variables of the driver that it is given.
    """

    share: Path
    setup: WorkerSetup
    device: str
    threads: int | None
    folder: str
    environment: Mapping[str, str]


def draw_blocks(desk: Desk, tasks: Mapping[int, Task]) -> None:
    """Draw blocks, in a job, and write what became of each to a file of the shared folder.

    Args:
        desk: what the job needs beside them.
        tasks: blocks by number.
    """
    driver = _Sign(desk.share / "driver")
    seat = Seat(desk.setup, desk.device, desk.threads or len(os.sched_getaffinity(0)))
    fault = seat.settle(desk.folder, desk.environment)
    try:
        for number, task in tasks.items():
            if (desk.share / "ended").exists() or driver.is_old:
                return
            if not _mark(desk.share, task).exists():
                answer = seat.draw(task, tries=2) if fault is None else pickle.dumps(fault)
                write_atomically(desk.share / f"{number}.answer", answer)
    finally:
        seat.end()


def _mark(share: Path, task: Task) -> Path:
    """Return the file that says that a trial's blocks are not wanted any more."""
    return share / f"{task.trial.key}.unwanted"


class _Sign:
    """A file that somebody touches as long as he is there; clocks of two machines are not compared."""

    def __init__(self, path: Path) -> None:
        self._path, self._seen, self._since = path, -1.0, time.monotonic()

    @property
    def is_old(self) -> bool:
        """Whether it was not touched for `ORPHAN` seconds of looking at it, or is gone."""
        try:
            touched = self._path.stat().st_mtime
        except OSError:
            return True
        if touched != self._seen:
            self._seen, self._since = touched, time.monotonic()
        return time.monotonic() - self._since > ORPHAN


class _Jobs:
    """The jobs of one run, and the folder that they share with it."""

    def __init__(
        self,
        executor: Submitit,
        setup: WorkerSetup,
        device: str,
        tasks: Sequence[Task],
        wanted: Callable[[Task], bool],
    ) -> None:
        self._executor, self._setup, self._device, self._wanted = executor, setup, device, wanted
        base = executor.folder or cache_folder() / "submitit"
        self._share = (base / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}").resolve()
        try:
            self._share.mkdir(parents=True)
        except OSError as error:
            raise BenchError(
                f"cannot write {base} ({error.strerror}); choose another with --slurm folder=DIR"
            ) from None
        self._touch()
        self._open = dict(enumerate(tasks))
        self._chunks = deque(in_chunks(list(self._open.items()), executor.jobs, executor.blocks))
        self._jobs: list[tuple[Any, dict[int, Task]]] = []
        self._losses: Counter[int] = Counter()
        self._heard, self._faulty, self._empty = False, False, 0
        self._asked = time.monotonic()

    def outcomes(self) -> Iterator[tuple[Task, Outcome]]:
        """Yield what becomes of every block that is still wanted."""
        while self._open:
            self._submit()
            time.sleep(LOOK)
            self._touch()
            ended = self._ended()  # before the folder is read
            yield from self._answers()
            for pair in ended:
                self._jobs.remove(pair)
                yield from self._lost(*pair)
            self._forget_unwanted()

    def end(self) -> None:
        """End the jobs; their logs are kept where something was lost."""
        (self._share / "ended").touch()
        for job, _ in self._jobs:
            job.cancel(check=False)
        if not self._faulty:
            shutil.rmtree(self._share, ignore_errors=True)

    def _submit(self) -> None:
        """Hand in the jobs that are waiting: to SLURM as one array, which holds to the most at a time."""
        local = self._executor.cluster == "local"
        room = self._executor.jobs - len(self._jobs) if local else len(self._chunks)
        chunks = [self._chunks.popleft() for _ in range(min(room, len(self._chunks)))]
        if not chunks:
            return
        threads = max(1, torch.get_num_threads() // self._executor.jobs) if local else None
        desk = Desk(self._share, self._setup, self._device, threads, os.getcwd(), shared_environment())
        try:
            submitter = self._submitter()
            with submitter.batch():
                jobs = [submitter.submit(draw_blocks, desk, one) for one in chunks]
        except Exception as error:  # submitit says what sbatch says in exceptions of several kinds
            raise BenchError(f"the jobs cannot be handed in: {one_line(str(error))}") from None
        self._jobs += zip(jobs, chunks, strict=True)

    def _submitter(self) -> Any:
        import submitit

        logs = self._share / "logs"
        cuda = torch.device(self._device).type == "cuda"
        if self._executor.cluster == "local":
            submitter: Any = submitit.LocalExecutor(logs)
            submitter.update_parameters(timeout_min=7 * 24 * 60, gpus_per_node=int(cuda))
            return submitter
        asked = DEFAULTS | dict(self._executor.sbatch)
        if cuda and not any(key in asked for key in GPUS):
            asked["gpus_per_node"] = "1"
        flags = {key: True if value == "true" else value for key, value in asked.items()}
        submitter = submitit.SlurmExecutor(logs)
        submitter.update_parameters(array_parallelism=self._executor.jobs, additional_parameters=flags)
        return submitter

    def _ended(self) -> list[tuple[Any, dict[int, Task]]]:
        """Return the jobs that have ended with their blocks; SLURM's accounting is asked now and then."""
        asks = time.monotonic() - self._asked > ACCOUNTING
        if asks:
            self._asked = time.monotonic()
        # Asked about one job submitit learns about all of them.
        return [pair for place, pair in enumerate(self._jobs) if pair[0].done(asks and not place)]

    def _answers(self) -> Iterator[tuple[Task, Outcome]]:
        """Take in the answers that lie in the folder."""
        for path in sorted(self._share.glob("*.answer"), key=lambda path: int(path.stem)):
            number, answer = int(path.stem), _read(path)
            task = self._open.get(number)
            if task is None:
                continue
            if isinstance(answer, BenchError):
                self._faulty = True
                raise answer
            self._heard = True
            del self._open[number]
            yield task, answer[0]

    def _lost(self, job: Any, chunk: Mapping[int, Task]) -> Iterator[tuple[Task, Outcome]]:
        """Hand in again what a job that has ended did not draw.

        Raises:
            BenchError: if no job has drawn anything yet: the next one would not either.
        """
        elsewhere = {number for one in (*self._chunks, *(one for _, one in self._jobs)) for number in one}
        left = {n: task for n, task in chunk.items() if n in self._open and n not in elsewhere}
        left = {n: task for n, task in left.items() if self._wanted(task)}
        if not left:
            return
        self._faulty = True
        reason = f"{_why(job)}; its log is in {self._share / 'logs'}"
        self._empty += not self._heard
        if self._empty >= STARTS:
            raise BenchError(f"{STARTS} jobs ended before they drew anything: {reason}")
        warnings.warn(f"a job was lost, its blocks are handed in again: {reason}", stacklevel=2)
        first = next(iter(left))  # the one that it was drawing
        self._losses[first] += 1
        if self._losses[first] >= LOST:
            failure = Failure("failed", "drawing", f"its job was lost {LOST} times: {reason}")
            yield self._open.pop(first), failure
            del left[first]
        if left:
            self._chunks.append(left)

    def _forget_unwanted(self) -> None:
        for number, task in list(self._open.items()):
            if not self._wanted(task):
                _mark(self._share, task).touch()
                del self._open[number]

    def _touch(self) -> None:
        (self._share / "driver").touch()


def _read(path: Path) -> Answer:
    """Return an answer, and delete its file."""
    answer: Answer = pickle.loads(path.read_bytes())
    path.unlink()
    return answer


def _why(job: Any) -> str:
    """Return how a job ended: its state, and the last line that it wrote to its log of errors."""
    lines = (job.stderr() or "").strip().splitlines()
    return ": ".join(filter(None, [f"job {job.job_id} {job.state}", lines[-1].strip() if lines else ""]))


@hookimpl
def bench_executors() -> Sequence[Executor]:
    """Register it."""
    return [Submitit()]
