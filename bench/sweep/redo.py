"""Draw excerpts of a folder's trials again, chosen at random, and compare them with what the records hold.

A record's digest tells that its content is the one that was written, and its leave-one-out values that a
score is possible; that the samples are what they are said to be only another drawing shows. A trial that took
less than `WHOLE_SECONDS` is drawn whole, and its scores are computed again; of a longer one a block is drawn,
and its images compared with the digest that the record keeps of them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.device.modes import EAGER
from bench.diffusion.sampling import get_sampler
from bench.errors import BenchError, UnknownNameError
from bench.metrics.levels import Levels
from bench.plugins.loading import registry
from bench.records.provenance import environment
from bench.records.record import Record, stale_fields
from bench.records.store import Store, shown_images
from bench.records.trial import BlockImages, BlockResult, Cost, Failure, Task, Trial
from bench.stats.score import Score
from bench.sweep.request import Sweep
from bench.sweep.runner import Runner
from bench.sweep.tolerances import TOLERANCES

WHOLE_SECONDS = 60.0
"""Seconds of sampling and scoring up to which a trial is drawn whole."""

ARITHMETIC = 1e-5
"""Part of a score that the linear algebra behind it may move with its number of threads: the values without a
group are computed to that."""

SCORE_CLOSE = 0.25
"""Standard errors by which a score may differ on another machine: the noise is the same there."""

CALLS_CLOSE = 0.05
"""Part of the network calls by which rules that choose their steps may differ on another machine."""


@dataclass(frozen=True)
class Excerpt:
    """Some blocks of a trial that are drawn again.

    Attributes:
        record: the trial's record.
        blocks: sample indices of each block, in order.
    """

    record: Record
    blocks: Sequence[range]

    @property
    def whole(self) -> bool:
        """Whether nothing of the trial is missing: then its scores can be computed again."""
        return len(self.blocks) == self.record.trial.block_count

    def __str__(self) -> str:
        n = self.record.trial.n
        first, last = self.blocks[0].start, self.blocks[-1].stop - 1
        drawn = f"all {n:,} samples" if self.whole else f"samples {first:,} to {last:,} of {n:,}"
        return f"{self.record.title} ({self.record.key}), {drawn}"


@dataclass(frozen=True)
class Item:
    """One thing that a record holds beside the same drawn again.

    Attributes:
        name: what it is.
        exact: whether the two are equal to the bit.
        difference: how they differ, where that is more than may be; else empty.
    """

    name: str
    exact: bool
    difference: str = ""


@dataclass(frozen=True)
class Redone:
    """What came of drawing an excerpt of a trial again.

    Attributes:
        excerpt: what was drawn.
        items: what was compared; none where nothing could be drawn.
        machine: in what the machine or the versions differ from the record's; empty where bits must be equal.
        changed: what would make the record stale: its provenance that differs from today's.
        error: why it could not be drawn; else empty.
    """

    excerpt: Excerpt
    items: Sequence[Item] = ()
    machine: str = ""
    changed: Sequence[str] = ()
    error: str = ""

    @property
    def agrees(self) -> bool:
        """Whether it was drawn, and everything is as the record says."""
        return not self.error and not any(item.difference for item in self.items)

    def __str__(self) -> str:
        return f"{self.excerpt}: {self.told}"

    @property
    def told(self) -> str:
        """The outcome in words."""
        if self.error:
            return f"cannot be drawn again: {self.error}"
        wrong = [f"{item.name} {item.difference}" for item in self.items if item.difference]
        bits = [item.name for item in self.items if item.exact]
        close = [item.name for item in self.items if not item.exact and not item.difference]
        parts = [f"DIFFERS: {', '.join(wrong)}"] if wrong else []
        parts += [f"equal to the bit: {', '.join(bits)}"] if bits else []
        parts += [f"equal to rounding: {', '.join(close)}"] if close else []
        parts += [f"bits are not asked for: {self.machine}"] if self.machine else []
        parts += [f"stale, changed since: {', '.join(self.changed)}"] if self.changed else []
        return "; ".join(parts)


def choose_excerpts(
    records: Sequence[Record], count: int, seed: int, *, whole: bool = False
) -> list[Excerpt]:
    """Return up to ``count`` excerpts at random: one of each trial, in random order, then more of each.

    Real images, bounds, images that were given and trials without scores have nothing to be drawn. Trials
    that took less than `WHOLE_SECONDS` are excerpted whole, all of them with ``whole``.
    """
    choice = random.Random(seed)
    drawn = [one for one in records if one.kind == "samples" and one.status == "done" and not one.given]
    choice.shuffle(drawn)
    waiting = [_excerpts(record, whole=whole) for record in drawn]
    for mine in waiting:
        choice.shuffle(mine)
    found: list[Excerpt] = []
    while len(found) < count and any(waiting):
        found += [mine.pop() for mine in waiting if mine]
    return found[:count]


def _excerpts(record: Record, *, whole: bool) -> list[Excerpt]:
    """Return what can be drawn again on its own and compared with something."""
    cost = record.cost or Cost()
    blocks = record.trial.blocks
    if whole or len(blocks) == 1 or cost.sampling_seconds + cost.scoring_seconds <= WHOLE_SECONDS:
        return [Excerpt(record, blocks)]
    comparable = blocks if record.images.blocks else blocks[:1]  # without digests there are the pictures
    return [Excerpt(record, [block]) for block in comparable]


def redo(store: Store, excerpts: Sequence[Excerpt]) -> Iterator[Redone]:
    """Draw excerpts of trials again, one after the other, and yield what came of each.

    The same model, rule, grid, noise, batch and number of threads are taken. Where processor and versions are
    the record's, images must be equal to the bit; elsewhere to rounding: the mean absolute difference of
    pictures, and the difference of a block's means and deviations, may be the part `TOLERANCES` of half the
    range, scores may differ by `SCORE_CLOSE` standard errors.
    """
    for excerpt in excerpts:
        try:
            yield _redone(store, excerpt)
        except BenchError as error:
            yield Redone(excerpt, error=_reason(excerpt.record, error))


def _reason(record: Record, error: BenchError) -> str:
    """Return why a trial cannot be drawn: where its sampler is of a plugin file not given, which one."""
    row = record.sampler
    if record.environment.of_objects and isinstance(error, UnknownNameError):
        return f"it is of an object in Python, and only there can it be drawn: {record.environment.command}"
    if row.name in registry().samplers.entries or not row.plugin.endswith(".py"):
        return str(error)
    return f"its sampler {row.name!r} came from the plugin file {row.plugin}; give --plugin with that file"


def _redone(store: Store, excerpt: Excerpt) -> Redone:
    record, trial = excerpt.record, excerpt.record.trial
    device = "cuda:0" if trial.device == "cuda" and torch.cuda.is_available() else "cpu"
    machine = ", ".join(filter(None, [_other_machine(record, device), _otherwise_drawn(record)]))
    runner = Runner(_sweep_of(trial, device), store)
    (entry,) = runner.plan().entries
    changed = stale_fields(record, entry.cell.provenance)
    with _threads(record.environment.threads):
        drawn = [runner.worker(Task(trial, block)) for block in excerpt.blocks]
        for outcome in drawn:
            if isinstance(outcome, Failure):
                return Redone(excerpt, machine=machine, changed=changed, error=outcome.message)
        total, *others = [outcome for outcome in drawn if isinstance(outcome, BlockResult)]
        for other in others:
            total.extend(other)
        comparison = _Comparison(store, excerpt, exact=not machine)
        items = [*comparison.images(total), *comparison.pictures(total), *comparison.calls(total.cost)]
        if excerpt.whole:
            scores, failures = runner.scoring.scores(total.statistics, total.levels)
            if failures:
                return Redone(excerpt, machine=machine, changed=changed, error=failures[0].message)
            items += comparison.scores(scores)
    return Redone(excerpt, items, machine, changed)


def _sweep_of(trial: Trial, device: str) -> Sweep:
    """Return the sweep whose only trial is this one."""
    return Sweep(
        model=trial.model,
        samplers=(get_sampler(trial.sampler),),
        steps=(trial.steps,),
        n=trial.n,
        seed=trial.seed,
        spacings=(trial.spacing,),
        batch=trial.batch,
        precision=trial.precision,
        devices=(device,),
        metrics=trial.metrics,
        reference=trial.reference,
        mode=trial.mode,
    )


def _other_machine(record: Record, device: str) -> str:
    """Return in what this machine and its versions are not those of a record; empty where they are."""
    then, now = record.environment, environment(device)
    names = ["python", "torch", "numpy"]
    pairs = [(f"{name} {then.versions.get(name)}", f"{name} {now.versions.get(name)}") for name in names]
    pairs.append((then.device_name or "an unnamed processor", now.device_name))
    told = [f"{there} there, {here} here" for there, here in pairs if there != here]
    return ", ".join(told)


def _otherwise_drawn(record: Record) -> str:
    """Return in what a record was drawn otherwise than a block at a time by the network as it is."""
    mode = record.trial.mode
    told = [f"the network was run in mode {mode}"] if mode != EAGER else []
    if record.drawing is not None and record.drawing.batch is not None:
        told.append(f"memory held {record.drawing.batch} samples at a time")
    return ", ".join(told)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Take a number of threads for a while: sums come in another order with another number."""
    own = torch.get_num_threads()
    torch.set_num_threads(count or own)
    try:
        yield
    finally:
        torch.set_num_threads(own)


@dataclass(frozen=True)
class _Comparison:
    """A record beside what was drawn again.

    Attributes:
        store: holds the record's pictures.
        excerpt: what was drawn.
        exact: whether the machine is the record's, so that bits must be equal.
    """

    store: Store
    excerpt: Excerpt
    exact: bool

    @property
    def _levels(self) -> float:
        """How far apart images may be, in levels of 256."""
        return 0.0 if self.exact else 127.5 * TOLERANCES[self.excerpt.record.trial.precision].answers

    def images(self, drawn: BlockResult) -> Iterator[Item]:
        """Compare the images of each block by their digests, and those of the trial by their sums."""
        told = self.excerpt.record.images
        if told.blocks:
            blocks = list(self._blocks(told.blocks, drawn.images))
            yield from (item for item in blocks if item.difference)
            if agreeing := [item for item in blocks if not item.difference]:
                name = agreeing[0].name if len(agreeing) == 1 else f"images of {len(agreeing)} blocks"
                yield Item(name, exact=all(item.exact for item in agreeing))
        if self.excerpt.whole and told.mean is not None and told.sd is not None:
            apart = 127.5 * max(abs(told.mean - drawn.levels.mean), abs(told.sd - drawn.levels.sd))
            equal = apart == 0 and told.outside == drawn.levels.share_outside
            yield self._item("mean and deviation of all images", equal, apart)

    def _blocks(self, told: Sequence[str], drawn: Sequence[BlockImages]) -> Iterator[Item]:
        for block, now in zip(self.excerpt.blocks, drawn, strict=True):
            name = f"images {block.start:,} to {block.stop - 1:,}"
            try:
                then = BlockImages.parse(told[block.start // self.excerpt.record.trial.batch])
            except (ValueError, IndexError):
                yield Item(name, exact=False, difference="are told in a form that no version writes")
                continue
            apart = _levels_apart(then.levels, now.levels)
            yield self._item(name, then.digest == now.digest, apart)

    def pictures(self, drawn: BlockResult) -> Iterator[Item]:
        """Compare the first images and the film of sample 0, where they are there."""
        record, start = self.excerpt.record, drawn.block.start
        for name, now, begin, read in (
            ("pictures", drawn.previews, start, self.store.previews),
            ("film", drawn.film, 0, self.store.film),
        ):
            if not len(now):
                continue
            kept = None
            with suppress(BenchError):  # a picture that cannot be read tells nothing
                kept = read(record)
            if kept is not None:
                yield self._pictures(name, kept[begin : begin + len(now)], shown_images(now))

    def _pictures(self, name: str, then: Tensor, now: Tensor) -> Item:
        if then.shape != now.shape:
            shapes = [" x ".join(map(str, one.shape)) for one in (then, now)]
            return Item(name, exact=False, difference=f"are {shapes[0]} in the record and {shapes[1]} now")
        apart = float((then.float() - now.float()).abs().mean())
        return self._item(name, apart == 0, apart)

    def _item(self, name: str, equal: bool, apart: float) -> Item:
        wrong = not equal and (self.exact or apart > self._levels)
        by = f"by {apart:.3g} of 256 levels on average" if apart > 0 else "in some values"
        return Item(name, equal, f"differ {by}" if wrong else "")

    def calls(self, now: Cost) -> Iterator[Item]:
        """Compare the network calls: a block takes no more than the trial, in which the most is told."""
        then = self.excerpt.record.cost
        if then is None:
            return
        allowed = 0.0 if self.exact else CALLS_CLOSE * then.calls
        apart = now.calls - then.calls
        wrong = apart > allowed or (self.excerpt.whole and -apart > allowed)
        told = f"are {then.calls:g} in the record and {now.calls:g} now"
        yield Item("network calls", exact=apart == 0, difference=told if wrong else "")

    def scores(self, now: dict[str, Score]) -> Iterator[Item]:
        """Compare the scores with all that belongs to them."""
        for name, then in self.excerpt.record.scores.items():
            if name not in now:
                yield Item(name, exact=False, difference="is in the record and is not computed now")
                continue
            yield self._score(name, then, now[name])

    def _score(self, name: str, then: Score, now: Score) -> Item:
        arithmetic = ARITHMETIC * abs(now.value)
        moved = 0.0 if self.exact or math.isnan(now.se) else SCORE_CLOSE * now.se
        if len(then.leave_one_out) != len(now.leave_one_out):
            told = f"has {len(then.leave_one_out)} leave-one-out values and {len(now.leave_one_out)} now"
            return Item(name, exact=False, difference=told)
        without = zip(then.leave_one_out, now.leave_one_out, strict=True)
        plain = _apart([(then.value, now.value), *without])
        derived = _apart([(then.debiased, now.debiased), (then.se, now.se)])
        exact = max(plain, derived) == 0
        most = (
            2 * max(1, len(now.leave_one_out)) * arithmetic
        )  # G f - (G - 1) mean f_(-k) moves so far with f
        if plain > arithmetic + moved or derived > most + moved:
            return Item(
                name, exact=False, difference=f"is {_shown(then)} in the record and {_shown(now)} now"
            )
        if self.exact and set(then.flags) != set(now.flags):
            flags = [", ".join(one.flags) or "none" for one in (then, now)]
            return Item(name, exact=False, difference=f"has the flags {flags[0]} and now {flags[1]}")
        return Item(name, exact)


def _levels_apart(then: Levels, now: Levels) -> float:
    """Return how far the means and the deviations of two blocks are apart, in levels of 256."""
    return 127.5 * max(abs(then.mean - now.mean), abs(then.sd - now.sd))


def _apart(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the greatest distance within pairs; two that are no numbers are none apart."""
    return max(
        (0.0 if a == b or (math.isnan(a) and math.isnan(b)) else _distance(a, b) for a, b in pairs),
        default=0.0,
    )


def _distance(a: float, b: float) -> float:
    distance = abs(a - b)
    return math.inf if math.isnan(distance) else distance


def _shown(score: Score) -> str:
    corrected = "" if math.isnan(score.debiased) else f", corrected {score.debiased:.6g}"
    return f"{score.value:.6g} ± {score.se:.3g}{corrected}"
