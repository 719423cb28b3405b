"""A process that draws blocks for another, which sees how far it is, that it died, and that it hangs."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from bench.errors import BenchError, sentence_of, users_code
from bench.plugins.executor import Outcome
from bench.records.provenance import device_name
from bench.records.trial import BlockResult, Failure, Task, WorkerSetup
from bench.sweep.worker import worker

LOOK = 0.5
"""Seconds between two looks at a process."""

PATIENCE = 5.0
"""Seconds that a process has to end once its pipe has."""

GROUP = 1.0
"""Seconds in which a signal that was sent to all processes, and ended one of them, reaches this one too."""

LEAST, TIMES = 300.0, 20.0
"""Where no time limit is given a step may take so many times the longest so far, and so many seconds."""

CRASHES = frozenset({"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT"})
"""Signals by which native code ends a process."""


class Pulse(ctypes.Structure):
    """What a process tells, in memory that both see: a message a step would cost time that is measured.

    Attributes:
        stage: what is being done, as in ``step 3``.
        beats: how many stages were reached.
        longest: seconds of the longest stage so far.
    """

    stage: bytes
    beats: int
    longest: float
    _fields_ = (("stage", ctypes.c_char * 64), ("beats", ctypes.c_uint64), ("longest", ctypes.c_double))


class Child:
    """A process on one device that draws one block at a time; it is started when one is given.

    Attributes:
        task: the block that it draws, or None.
        pipe: where its answers come from.

    Args:
        setup: what it draws with.
        device: a torch device.
        threads: torch's threads in it.
    """

    def __init__(self, setup: WorkerSetup, device: str, threads: int) -> None:
        self.task: Task | None = None
        self._setup, self._device, self._threads = setup, device, threads
        self._context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._pulse: Pulse = self._context.RawValue(Pulse)
        self._process: BaseProcess | None = None
        self.pipe: Connection
        self._beats, self._quiet, self._looked = 0, 0.0, 0.0

    def give(self, task: Task | None) -> None:
        """Have it draw a block, or nothing."""
        self.task = task
        if task is None:
            return
        if self._process is not None and not self._process.is_alive():
            self.end()
        if self._process is None:
            self._start()
        self._quiet, self._looked = 0.0, time.monotonic()
        with suppress(BrokenPipeError):  # it died this moment: the next look finds it dead
            self.pipe.send(task)

    def look(self) -> Outcome | None:
        """Return what became of the block, or None where it is still being drawn.

        Where the process died, or hangs and is ended here, the next block starts another.

        Raises:
            BenchError: if the process cannot be started.
        """
        assert self._process is not None  # a block was given
        alive = self._process.is_alive()  # before the pipe is read: its last word is heard
        try:
            if self.pipe.poll():
                answer: Outcome | BenchError = pickle.loads(self.pipe.recv_bytes())
                if isinstance(answer, BenchError):
                    raise answer
                return answer
        except (EOFError, OSError):
            alive = False
        if not alive:
            return self._lost()
        if self._hangs():
            limit = f"{self._limit:.3g} s"
            return self._lost(f"it took longer than {limit}; --timeout SECONDS allows another time a step")
        return None

    @property
    def runs(self) -> bool:
        """Whether there is a process: not before the first block, nor once it died or was ended."""
        return self._process is not None

    def end(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self.pipe.close()
            atexit.unregister(self._process.kill)
            self._process = None

    def _start(self) -> None:
        self.pipe, theirs = self._context.Pipe()
        self._pulse.beats, self._beats = 0, 0
        self._process = self._context.Process(
            target=_serve, args=(self._setup, self._device, self._threads, self._pulse, theirs)
        )
        self._process.start()
        theirs.close()  # so that the pipe ends with the process
        atexit.register(self._process.kill)  # whatever ends this program ends it too

    @property
    def _limit(self) -> float:
        return self._setup.timeout or max(LEAST, TIMES * self._pulse.longest)

    def _hangs(self) -> bool:
        """Return whether it has been at one stage for too long, while this program was looking."""
        now = time.monotonic()
        if self._pulse.beats == self._beats:
            self._quiet += min(now - self._looked, 2 * LOOK)
        else:
            self._beats, self._quiet = self._pulse.beats, 0.0
        self._looked = now
        return self._beats > 0 and self._quiet > self._limit

    def _lost(self, reason: str = "") -> Failure:
        """Clear away a process that will answer no more, and return what is said of its block."""
        assert self._process is not None  # there was one
        told, began = reason or self._ended(), self._pulse.beats > 0
        self.end()
        if not began:
            raise BenchError(
                f"a worker process cannot be started: {told}; --executor serial runs without one"
            )
        return Failure("failed", self._pulse.stage.decode(errors="replace"), told)

    def _ended(self) -> str:
        """Return how the process ended; where this program is being ended with it, that happens here."""
        assert self._process is not None  # there was one
        status = _status(self._process)
        if status == -signal.SIGTERM:
            time.sleep(GROUP)
        return ended(status)


def wait_for(children: Sequence[Child]) -> None:
    """Wait until one of some children answers or dies, or it is time to look at them."""
    wait([child.pipe for child in children], LOOK)


def _status(process: BaseProcess) -> int | None:
    """Return the exit status of a process that is about to end; None where it does not.

    Its ``join`` would wait for ever where the process has closed its files, which is all that it waits for.
    """
    end = time.monotonic() + PATIENCE
    while process.exitcode is None and time.monotonic() < end:
        time.sleep(0.01)
    return process.exitcode


def ended(status: int | None) -> str:
    """Return how a process ended as a sentence.

    Args:
        status: its exit status; negative where a signal killed it, None where it has not ended.
    """
    if status is None:
        return "the process closed the pipe that its answers go through"
    if status >= 0:
        return f"the process ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        return f"the process was killed by signal {-status}"
    why = ": a crash in native code" if name in CRASHES else ": out of memory?" if name == "SIGKILL" else ""
    return f"the process was killed by signal {-status} ({name}){why}"


def _serve(setup: WorkerSetup, device: str, threads: int, pulse: Pulse, pipe: Connection) -> None:
    """Draw the blocks that come through a pipe until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        draw = worker(setup, device)
    except users_code() as error:
        pipe.send_bytes(pickle.dumps(BenchError(sentence_of(error))))
        return
    since = time.monotonic()

    def told(stage: str) -> None:
        nonlocal since
        now = time.monotonic()
        if pulse.beats:
            pulse.longest = max(pulse.longest, now - since)
        since = now
        pulse.stage = stage.encode()[:63]
        pulse.beats += 1

    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        since = time.monotonic()
        outcome = draw(task, told)
        if isinstance(outcome, BlockResult):
            outcome.machine = device_name(device)
        sys.stdout.flush()  # what a plugin prints is not lost when the process is ended
        pipe.send_bytes(pickle.dumps(outcome))  # whole: shared memory would end with the process


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
