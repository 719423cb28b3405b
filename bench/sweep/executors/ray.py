"""The executor ``ray``: the nodes of a Ray cluster, one worker a GPU or a part of one.

Each worker is an actor that draws in a process of its own, as the executor ``processes`` does: what a plugin
does to that process is told by the actor beside it. What Ray tells is the loss of an actor or a node.
"""

from __future__ import annotations

import itertools
import math
import os
import pickle
import signal
import socket
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch

from bench.errors import BenchError, UsageError, one_line
from bench.hooks import hookimpl
from bench.plugins.executor import Executor, Outcome
from bench.records.trial import Failure, Task, WorkerSetup
from bench.sweep.executors.seat import LOST, Answer, Seat, shared_environment

LOOK = 0.5
"""Longest seconds between two looks at the workers."""

NODES = 2.0
"""Seconds between two looks at which nodes there are."""

SILENCE = 60.0
"""Seconds without an answer after which a worker's actor is given up, where no --timeout is given."""

PATIENCE = 30.0
"""Seconds without any worker after which the user is told that the cluster has no room."""

STARTS = 3
"""Times that a worker is started on a node before the node is left out."""

PROBE = 5.0
"""Seconds that an address has to answer."""

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How a connection of HTTP/2, which both of Ray's ports speak, begins: preface, empty settings (RFC 9113)."""

SETTINGS = 4
"""Type of a frame of settings, the first that an HTTP/2 server sends."""


@dataclass(frozen=True)
class Ray:
    """Draws on the nodes of a Ray cluster: those there are, and those that join while it runs.

    A block lost with its worker or node is drawn again elsewhere. A process that a plugin ends or hangs is
    tried once more on another worker; where that ends alike the trial fails with the reason.

    Attributes:
        address: ``HOST:PORT`` or ``ray://HOST:PORT``; the cluster of this machine where None, or a new one
            of this machine alone where it has none.
        gpus_per_worker: GPUs of a worker on CUDA devices; a fraction lets workers share one.
    """

    address: str | None = None
    gpus_per_worker: float = 1.0
    name = "ray"
    elsewhere = True

    def with_options(self, options: Mapping[str, str]) -> Executor:
        """Return it for an address and a number of GPUs; see `bench.plugins.executor.Configurable`."""
        unknown = set(options) - {"address", "gpus_per_worker"}
        if unknown:
            raise UsageError(f"executor 'ray' takes address and gpus_per_worker, got {', '.join(unknown)}")
        if find_spec("ray") is None:
            raise UsageError("--executor ray needs Ray: pip install 'sampler-bench[ray]'")
        gpus = _gpus(options["gpus_per_worker"]) if "gpus_per_worker" in options else self.gpus_per_worker
        address = options.get("address")
        for one in filter(None, (address or os.environ.get("RAY_ADDRESS"),)):
            _refuse_silent(one)
        return replace(self, address=address, gpus_per_worker=gpus)

    def run(
        self,
        tasks: Sequence[Task],
        setup: WorkerSetup,
        devices: Sequence[str],
        wanted: Callable[[Task], bool],
    ) -> Iterator[tuple[Task, Outcome]]:
        """Run the tasks, each on the first worker that is free; see `bench.plugins.executor.Executor.run`."""
        with _connected(self.address):
            pool = _Pool(self, setup, devices, deque(tasks), wanted)
            try:
                yield from pool.outcomes()
            finally:
                pool.end()


def _gpus(text: str) -> float:
    """Return how many GPUs a worker takes.

    Raises:
        UsageError: if the text is no number above 0, or one above 1 that is not whole, which Ray refuses.
    """
    try:
        gpus = float(text)
    except ValueError:
        gpus = math.nan
    if not 0 < gpus < math.inf or (gpus > 1 and gpus != int(gpus)):
        raise UsageError(
            f"--gpus-per-worker takes a fraction of a GPU as in 0.25, or a whole number of them, got {text}"
        )
    return gpus


def _refuse_silent(address: str) -> None:
    """Raise in a sentence where no Ray answers at an address: Ray itself would try for minutes.

    Raises:
        UsageError: if it is no address.
        BenchError: if nothing answers, or something else.
    """
    if address in ("auto", "local"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit() or "/" in host:
        raise UsageError(f"--address takes HOST:PORT, ray://HOST:PORT or auto, got {address}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return  # the server begins only once it is spoken to in TLS
            connection.settimeout(PROBE)
            connection.sendall(HELLO)
            head = connection.recv(4)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BenchError(
            f"no Ray answers at {address} ({reason}); `ray start --head` prints a cluster's address"
        ) from None
    if len(head) < 4 or head[3] != SETTINGS:
        raise BenchError(f"what answers at {address} is not Ray; `ray start --head` prints its address")


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster, and leave it in the end; a connection that is there already is used and stays.

    Raises:
        BenchError: if there is no way.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody unless asked for
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray 2.60 announces as its default
    import ray

    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    try:
        with _termination_kept():
            try:
                ray.init(address=address or "auto", **quiet)
            except ConnectionError:
                if address is not None:
                    raise
                ray.init(address="local", include_dashboard=False, **quiet)
    except (Exception, SystemExit) as error:
        where = f"at {address}" if address else "on this machine"
        raise BenchError(f"Ray {where} cannot be used: {one_line(str(error))}") from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _termination_kept() -> Iterator[None]:
    """Put back what handles SIGTERM: Ray's own, which stays, exits wherever the program or its fork is."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class _Room:
    """Workers that a node can hold.

    Attributes:
        workers: how many.
        cpus: CPUs that each claims.
        gpus: GPUs that each claims.
        threads: torch's threads in each.
    """

    workers: int
    cpus: float
    gpus: float
    threads: int


@dataclass
class _Worker:
    """An actor on a node, from its start on.

    Attributes:
        node: the node's id.
        actor: Ray's handle.
        answer: what will hold its answer: of its start, or of its block; None where it has nothing to do.
        task: the block that it draws, or None.
        sign: what will hold a sign of life, asked for while it draws; None where none is asked for.
        since: when the sign was asked for, or given.
    """

    node: str
    actor: Any
    answer: Any
    task: Task | None = None
    sign: Any = None
    since: float = 0.0


class _Pool:
    """The workers of one run."""

    def __init__(
        self,
        executor: Ray,
        setup: WorkerSetup,
        devices: Sequence[str],
        queue: deque[Task],
        wanted: Callable[[Task], bool],
    ) -> None:
        import ray

        self._ray: Any = ray
        self._executor, self._setup = executor, setup
        self._cuda = torch.device(devices[0]).type == "cuda"
        if self._cuda and len(devices) > 1:
            raise UsageError(
                f"--executor ray finds the GPUs itself, got {', '.join(devices)}; give --device cuda"
            )
        self._device, self._a_node = ("cuda:0" if self._cuda else devices[0]), len(devices)
        self._queue, self._wanted = queue, wanted
        self._workers: list[_Worker] = []
        self._rooms: dict[str, _Room] = {}
        self._starts: Counter[str] = Counter()
        self._left_out: dict[str, str] = {}
        self._losses: Counter[tuple[str, int]] = Counter()
        self._looked, self._began, self._told = -math.inf, time.monotonic(), False
        self._silence = max(setup.timeout or SILENCE, PROBE)
        self._seat = self._ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=2)(Seat)

    def outcomes(self) -> Iterator[tuple[Task, Outcome]]:
        """Yield what becomes of every block that is still wanted when its turn comes."""
        while self._hand_out():
            self._look_at_nodes()
            waiting = {worker.answer: worker for worker in self._workers if worker.answer is not None}
            if not waiting:
                self._say_no_room()
                time.sleep(LOOK)
                continue
            done, _ = self._ray.wait(list(waiting), num_returns=1, timeout=LOOK)
            for answer in done:
                yield from self._heard(waiting[answer])
            yield from self._unheard()

    def end(self) -> None:
        """End every worker, whatever it is doing."""
        if not self._ray.is_initialized():  # the program ends, and Ray has ended before this
            return
        for worker in self._workers:
            self._kill(worker)
        self._workers = []

    def _hand_out(self) -> bool:
        """Give every idle worker a block, and return whether anything is left to wait for."""
        for worker in self._workers:
            if worker.answer is None:
                task = self._next()
                if task is None:
                    break
                worker.task, worker.answer = task, worker.actor.draw.remote(task)
                worker.sign, worker.since = None, time.monotonic()
        return any(worker.task is not None for worker in self._workers) or self._has_more()

    def _has_more(self) -> bool:
        while self._queue and not self._wanted(self._queue[0]):
            self._queue.popleft()
        return bool(self._queue)

    def _next(self) -> Task | None:
        return self._queue.popleft() if self._has_more() else None

    def _heard(self, worker: _Worker) -> Iterator[tuple[Task, Outcome]]:
        """Take the answer of a worker: it has started, or what became of its block, or that it is lost."""
        exceptions = self._ray.exceptions
        try:
            answer: bytes | BenchError | None = self._ray.get(worker.answer)
        except exceptions.RayTaskError as error:
            raise BenchError(f"a worker on {self._named(worker.node)} failed: {_last_line(error)}") from None
        except exceptions.RayError as error:
            yield from self._lost(worker, _last_line(error))
            return
        task, worker.answer, worker.task = worker.task, None, None
        told: Answer | BenchError | None = pickle.loads(answer) if isinstance(answer, bytes) else answer
        if isinstance(told, BenchError):  # no fault of the block: the node lacks something
            if task is not None:
                self._queue.appendleft(task)
            self._leave_out(worker, str(told))
        elif told is None or task is None:  # it has started
            self._starts[worker.node] = 0
        else:
            outcome, crashed = told
            if not (crashed and self._again(task)):
                yield task, outcome

    def _again(self, task: Task, most: int = 2) -> bool:
        """Return whether a block whose worker was lost is drawn again, before all others."""
        key = task.trial.key, task.block.start
        self._losses[key] += 1
        if self._losses[key] >= most:
            return False
        self._queue.appendleft(task)
        return True

    def _lost(self, worker: _Worker, reason: str) -> Iterator[tuple[Task, Outcome]]:
        """Clear away a worker that will not answer; its block is drawn again."""
        task = worker.task
        self._drop(worker)
        if task is None:
            if self._starts[worker.node] >= STARTS:
                self._leave_out(worker, f"no worker can be started: {reason}")
        elif not self._again(task, LOST):
            where = self._named(worker.node)
            yield (
                task,
                Failure("failed", "drawing", f"its worker was lost {LOST} times, on {where}: {reason}"),
            )

    def _unheard(self) -> Iterator[tuple[Task, Outcome]]:
        """Ask the workers that draw for a sign of life, and give up those that give none for too long."""
        now = time.monotonic()
        for worker in [one for one in self._workers if one.task is not None]:
            if worker.sign is None:
                if now - worker.since > min(NODES, self._silence / 2):
                    worker.sign, worker.since = worker.actor.is_alive.remote(), now
            elif self._ray.wait([worker.sign], timeout=0)[0]:
                worker.sign, worker.since = None, now  # of an actor that is lost its answer tells
            elif now - worker.since > self._silence:
                yield from self._lost(worker, f"it gave no sign of life for {self._silence:.3g} s")

    def _look_at_nodes(self) -> None:
        """Start workers on the nodes that have room, as many as there are blocks for.

        Raises:
            BenchError: if no node has what a worker needs, or no worker can be started on any.
        """
        if time.monotonic() - self._looked < NODES:
            return
        self._looked = time.monotonic()
        alive = {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}
        self._rooms = {key: room for key, node in alive.items() if (room := self._room(node["Resources"]))}
        if not self._rooms and not self._workers:
            gpus = self._executor.gpus_per_worker
            what = ("a GPU" if gpus <= 1 else f"{gpus:g} GPUs") if self._cuda else "a CPU"
            other = "; --device cpu draws without" if self._cuda else ""
            raise BenchError(f"no node of the Ray cluster has {what} for a worker{other}")
        usable = {key: room for key, room in self._rooms.items() if key not in self._left_out}
        if self._rooms and not usable and not self._workers:
            raise BenchError(next(iter(self._left_out.values())))
        idle = sum(worker.task is None for worker in self._workers)
        places = itertools.chain.from_iterable(
            itertools.repeat(key, room.workers - sum(one.node == key for one in self._workers))
            for key, room in usable.items()
        )
        for key in itertools.islice(places, max(0, len(self._queue) - idle)):
            self._start(key, usable[key])

    def _room(self, resources: Mapping[str, float]) -> _Room | None:
        """Return the workers that a node can hold by its resources, None where it can hold none."""
        cpus = resources.get("CPU", 0.0)
        gpus = self._executor.gpus_per_worker if self._cuda else 0.0
        workers = int(resources.get("GPU", 0.0) / gpus + 1e-6) if self._cuda else self._a_node
        if not workers or (not cpus and not self._cuda):
            return None
        share = cpus / workers
        claim = min(1.0, share) if self._cuda else share if share < 1 else math.floor(share)
        return _Room(workers, claim, gpus, max(1, int(share)))

    def _start(self, node: str, room: _Room) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._starts[node] += 1
        actor = self._seat.options(
            num_cpus=room.cpus,
            num_gpus=room.gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote(self._setup, self._device, room.threads)
        answer = actor.settle.remote(os.getcwd(), shared_environment())
        self._workers.append(_Worker(node, actor, answer, since=time.monotonic()))

    def _leave_out(self, worker: _Worker, reason: str) -> None:
        """Use a node no more, where no worker can be made; the others go on."""
        self._left_out[worker.node] = reason
        warnings.warn(f"node {self._named(worker.node)} is left out: {reason}", stacklevel=2)
        self._drop(worker)

    def _drop(self, worker: _Worker) -> None:
        self._kill(worker)
        if worker in self._workers:
            self._workers.remove(worker)

    def _kill(self, worker: _Worker) -> None:
        with suppress(self._ray.exceptions.RayError, ValueError):  # it is gone already
            self._ray.kill(worker.actor)

    def _say_no_room(self) -> None:
        if not self._told and time.monotonic() - self._began > PATIENCE:
            self._told = True
            warnings.warn("no worker has started yet: others may hold the cluster; waiting", stacklevel=2)

    def _named(self, node: str) -> str:
        found = [one["NodeManagerHostname"] for one in self._ray.nodes() if one["NodeID"] == node]
        return str(found[0]) if found else node[:8]


def _last_line(error: BaseException) -> str:
    """Return the last line of what Ray says, which names the cause, or the first where that is a heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@hookimpl
def bench_executors() -> Sequence[Executor]:
    """Register it."""
    return [Ray()]
