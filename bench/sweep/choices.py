"""What a sweep finds out by itself where it is asked to: the batch that pays, and the mode to be tried first.

Both are measured on the network alone, in turns, as the least of several: a machine that does something else
only adds to a time. What was chosen is kept in the results' folder, so that the same command goes on with the
same trials.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from bench.device.bfloat16 import computes_bfloat16
from bench.device.clock import free_memory
from bench.device.modes import EAGER, Mode, networks_of
from bench.device.precision import PRECISIONS
from bench.diffusion.conditions import bound
from bench.diffusion.grid import Grid
from bench.diffusion.noise import TrajectoryNoise
from bench.errors import BenchError, UsageError, users_code
from bench.files.atomic import write_atomically
from bench.records.provenance import short_hash
from bench.sweep.device_memory import device_needs
from bench.sweep.preflight import available_memory
from bench.sweep.readiness import AS_IT_IS, ModeRefused, is_out_of_memory
from bench.sweep.request import AUTO, Sweep
from bench.sweep.speed import call_seconds, in_turns
from bench.sweep.worker import Worker

Answer = TypeVar("Answer")

PAYS = 1.05
"""A batch or a mode is taken where it is at least so many times as fast as what it takes the place of."""

FIRST_BATCH, LARGEST_BATCH = 16, 4096
"""Batches that are tried: each twice the one before."""

LONGEST = 10.0
"""Seconds of a call beyond which no larger batch is tried."""

TURNS = 5
"""Times that each mode is measured."""

LONG = 600.0
"""Seconds of network calls from which a sweep is long enough to compile for: that takes half a minute or two
for each shape, and gains a fifth at most of what was measured, see docs/performance.md."""

CHOICES = "choices.json"
"""The file in the results' folder that says what was chosen."""


@dataclass(frozen=True)
class Choice:
    """What was chosen for a sweep.

    Attributes:
        mode: how the network is run.
        precision: what it computes in.
        batch: samples at a time.
        told: a sentence for each thing that was found.
    """

    mode: str
    precision: str
    batch: int | None
    told: tuple[str, ...] = ()

    def of(self, sweep: Sweep) -> Sweep:
        """Return a sweep with what was chosen."""
        return replace(sweep, mode=self.mode, precision=self.precision, batch=self.batch)


def refuse_lacking(sweep: Sweep) -> None:
    """Raise UsageError if a sweep names a mode that its device does not have."""
    if sweep.mode != AUTO and (
        lacking := Mode.parse(sweep.mode).lacking(torch.device(sweep.devices_here[0]))
    ):
        raise UsageError(f"--mode {sweep.mode} is not to be had: {lacking}; --mode auto takes what there is")


def largest_that_pays(seconds: Callable[[Sequence[int]], Sequence[float]], most: int) -> int:
    """Return the largest batch that is worth it: no smaller one is as fast within a twentieth.

    Batches are doubled, each measured in turns with the best so far, until two in a row gain nothing or
    memory does not hold the next.

    Args:
        seconds: the seconds of a call on each of some batches; OutOfMemory where one cannot be had.
        most: the largest batch that makes sense.
    """
    best = min(FIRST_BATCH, most)
    while best > 1:
        try:
            seconds([best])
            break
        except OutOfMemory:
            best = most = best // 2
    size, idle = 2 * best, 0
    while size <= most and idle < 2:
        try:
            before, taken = seconds([best, size])
        except OutOfMemory:
            break
        pays = size / taken >= PAYS * best / before
        best, idle = (size, 0) if pays else (best, idle + 1)
        size = 2 * size if taken <= LONGEST else most + 1
    return best


class OutOfMemory(Exception):  # noqa: N818  no fault: it ends a search
    """A batch that memory does not hold."""


def even(batch: int, n: int) -> int:
    """Return the batch of as many blocks that are as equal as they can be: 250 for 256 of 1000."""
    blocks = -(-n // batch)
    return -(-n // blocks)


@dataclass(frozen=True)
class Chooser:
    """Measures a model for a sweep.

    Attributes:
        sweep: what was asked for.
        worker: the model on its device.
        grid: steps, at the first of whose times the network is asked.
    """

    sweep: Sweep
    worker: Worker
    grid: Grid

    def choose(self, refused: Callable[[Choice], str]) -> Choice:
        """Return the batch that pays, and the fastest mode that is admitted: as it is where none pays.

        Args:
            refused: says why the images of a choice are not those of the network as it is; empty if they are.
        """
        sweep, told = self.sweep, list[str]()
        batch = sweep.batch
        if sweep.auto_batch:
            batch, sentence = self.batch()
            told.append(sentence)
        if sweep.mode != AUTO:
            return Choice(sweep.mode, sweep.precision, batch, tuple(told))
        size = min(batch or self.worker.loaded.card.batch, sweep.n)
        ranked, sentences = self.ranked(size)
        told += sentences
        for mode, precision in ranked:
            choice = Choice(mode, precision, batch)
            reason = refused(choice)
            if not reason:
                told.append(f"mode {mode}, {precision}")
                return replace(choice, told=tuple(told))
            told.append(reason)
        precision = "float32" if sweep.precision == AUTO else sweep.precision
        told.append(f"mode {EAGER}, {precision}: none that is admitted is faster")
        return Choice(EAGER, precision, batch, tuple(told))

    def batch(self) -> tuple[int, str]:
        """Return (the largest batch that pays, a sentence about it); the network is run as it is."""
        precision = "float32" if self.sweep.precision == AUTO else self.sweep.precision
        rates: dict[int, float] = {}

        def seconds(sizes: Sequence[int]) -> list[float]:
            turns = self._held(
                lambda: in_turns([self._call(EAGER, precision, size) for size in sizes], TURNS)
            )
            least = [min(one) for one in turns]
            for size, taken in zip(sizes, least, strict=True):
                rates[size] = max(rates.get(size, 0.0), size / taken)
            return least

        found = largest_that_pays(seconds, self._most())
        chosen = even(found, self.sweep.n)
        told = ", ".join(f"{rate:,.0f} at {size}" for size, rate in rates.items())
        return chosen, f"batch {chosen}: images a second of the network alone {told}"

    def _most(self) -> int:
        """Return the largest batch to be tried: on a CPU none that takes half of the free memory."""
        most = min(self.sweep.n, LARGEST_BATCH)
        there = available_memory()
        if self.worker.device.type != "cpu" or there is None:
            return most
        needs = device_needs(self.worker.loaded.model, list(self.worker.spaces.values()))
        while most > 1 and 2 * needs.activations(most) > there:
            most //= 2
        return most

    def ranked(self, batch: int) -> tuple[list[tuple[str, str]], list[str]]:
        """Return ((mode, precision) of all that pay, the fastest first, sentences about those refused)."""
        told: list[str] = []
        cheap = list(self._candidates())
        seconds = self._measured(cheap, batch, told)
        if self._calls(batch) * seconds[AS_IT_IS if AS_IT_IS in seconds else cheap[0]] >= LONG:
            mode, precision = min(seconds, key=seconds.__getitem__)
            compiled = Mode("compile", Mode.parse(mode).channels_last)
            seconds |= self._measured([cheap[0], (str(compiled), precision)], batch, told)
        first = seconds[cheap[0]]
        paying = {one: taken for one, taken in seconds.items() if first / taken >= PAYS}
        for (mode, precision), taken in seconds.items():
            told.append(f"{mode} {precision}: {first / taken:.2f} times as fast")
        return sorted(paying, key=paying.__getitem__), told

    def _calls(self, batch: int) -> float:
        """Return about how many network calls the sweep takes, were everything drawn."""
        sweep = self.sweep
        columns = sum(sweep.steps if not sweep.calls else sweep.calls)
        return columns * len(sweep.samplers) * len(sweep.spacings) * -(-sweep.n // batch)

    def _candidates(self) -> Iterator[tuple[str, str]]:
        """Yield (mode, precision), the one as it is first; without those that take long to be made ready."""
        device, asked = self.worker.device, self.sweep.precision
        precisions = [asked] if asked != AUTO else ["float32"]
        if asked == AUTO and device.type == "cuda":
            precisions.append("tf32")
        if asked == AUTO and computes_bfloat16(device):
            precisions.append("bfloat16")
        layouts = [False, True] if _has_convolutions(self.worker.loaded.model) else [False]
        networks = bool(networks_of(self.worker.loaded.model))
        engines = [EAGER, *(["cuda-graph"] if device.type == "cuda" and networks else [])]
        for engine in engines:
            for last in layouts:
                yield from ((str(Mode(engine, last)), precision) for precision in precisions)

    def _measured(
        self, candidates: Sequence[tuple[str, str]], batch: int, told: list[str]
    ) -> dict[tuple[str, str], float]:
        """Return the seconds of a call of those whose answers are admitted, the least of several turns."""
        works: dict[tuple[str, str], Callable[[], float]] = {}

        def leave_out(mode: str, precision: str) -> None:
            told.append(f"mode {mode} in {precision} is left out: memory does not hold it at batch {batch}")
            if all(other != mode for other, _ in works):  # one that is ready serves every precision
                self.worker.readiness.forget(mode)

        for mode, precision in candidates:
            try:
                works[mode, precision] = self._held(
                    partial(self._call, mode, precision, batch), needed=not works
                )
            except ModeRefused as refused:
                if not works:  # the first is what others are measured against
                    raise
                told.append(str(refused))
            except OutOfMemory:
                leave_out(mode, precision)
        turns = None
        while turns is None:
            try:
                turns = self._held(partial(in_turns, list(works.values()), TURNS), needed=len(works) < 2)
            except OutOfMemory:
                leave_out(*works.popitem()[0])  # what the others are ready with is held meanwhile
        return {one: min(seconds) for one, seconds in zip(works, turns, strict=True)}

    def _held(self, work: Callable[[], Answer], *, needed: bool = False) -> Answer:
        """Return what some work gives.

        Args:
            work: runs the network.
            needed: whether nothing is left to be tried without it: its error is then raised as it is.

        Raises:
            OutOfMemory: if memory does not hold it; what it took is given back.
        """
        try:
            return work()
        except users_code() as error:
            if needed or not is_out_of_memory(error):
                raise
        free_memory(self.worker.device)  # the error is gone, and with it what its frames held
        raise OutOfMemory

    def _call(self, mode: str, precision: str, batch: int) -> Callable[[], float]:
        """Return a function that measures a call of the network in a mode, which is made ready now."""
        seed, model, readiness = self.sweep.seed, self.worker.loaded.model, self.worker.readiness
        if (mode, precision) != AS_IT_IS:
            readiness.make_ready(mode, precision, batch, self.grid, seed)
        x = TrajectoryNoise(seed, range(batch), model.shape, self.worker.device).initial()
        mine, t = bound(model, range(batch), seed), self.grid[0].times(x)

        def seconds() -> float:
            with readiness.running(mode):
                return call_seconds(mine, x, [t], precision)

        return seconds


def _has_convolutions(model: object) -> bool:
    """Return whether some weight of a model has four dimensions, so that it has a layout."""
    return any(weight.dim() == 4 for network in networks_of(model) for weight in network.parameters())


class Kept:
    """Choices made in a results folder, by what was asked for, of which model, on which device.

    Args:
        folder: the results folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / CHOICES

    def read(self, key: str) -> Choice | None:
        """Return the choice with a key; None where there is none, or a damaged one."""
        found: Any = self._all().get(key)
        try:
            mode, precision, batch = found["mode"], found["precision"], found["batch"]
            Mode.parse(mode)
        except (KeyError, TypeError, AttributeError, UsageError):
            return None
        known = precision in PRECISIONS and (batch is None or isinstance(batch, int))
        return Choice(mode, precision, batch) if known else None

    def write(self, key: str, choice: Choice) -> None:
        """Keep a choice.

        Raises:
            BenchError: if the folder cannot be written to.
        """
        fields = {name: value for name, value in asdict(choice).items() if name != "told"}
        text = json.dumps({**self._all(), key: fields}, indent=1, sort_keys=True)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, (text + "\n").encode())
        except OSError as error:
            raise BenchError(f"cannot write {self.path}: {error.strerror}; choose --results DIR") from None

    def _all(self) -> dict[str, dict[str, object]]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def key_of(sweep: Sweep, weights: str) -> str:
    """Return what a choice is kept under: all that it may depend on, but for how busy the machine is."""
    device = torch.device(sweep.devices_here[0])
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    asked = {
        "weights": weights,
        "model": sweep.model,
        "device": name,
        "mode": sweep.mode,
        "precision": sweep.precision,
        "batch": sweep.batch,
        "auto": sweep.auto_batch,
        "n": sweep.n,
    }
    return short_hash(asked)
