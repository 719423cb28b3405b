"""Rounds: a sweep drawn at n, 2 n, 4 n, ..., until its question is answered or its time is spent.

After each round the samplers of a column that are beaten are dropped, and the others go on with the samples
that they have. What is claimed, and with which chance of error, is said in `bench.stats.sequential`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from bench.errors import UsageError
from bench.metrics.metric import Metric
from bench.records.ledger import Plan
from bench.records.record import Outcome, Record, StopInfo
from bench.records.trial import Trial
from bench.stats.comparison import estimate
from bench.stats.score import Score
from bench.stats.sequential import ALPHA, Boundary
from bench.sweep.runner import Observer, Runner, SampledCell

FIRST = 250
"""Fewest samples of the first round: of fewer a standard error of 20 groups says little."""


@dataclass(frozen=True)
class Rule:
    """When drawing stops; with neither a margin nor an error no sampler is dropped.

    Attributes:
        tie: relative difference under which two samplers count as tied.
        se: standard error of a score that is small enough.
        budget: seconds that all rounds may take.

    Raises:
        UsageError: if a number is not positive, or both a tie and an error are asked for.
    """

    tie: float | None = None
    se: float | None = None
    budget: float | None = None

    def __post_init__(self) -> None:
        if self.tie is not None and self.se is not None:
            raise UsageError("--until-tie and --until-se are two questions: give one of them")
        if self.tie is not None and not 0 < self.tie < 1:
            raise UsageError(f"--until-tie takes a part of a score, as 0.02 for 2%, got {self.tie:g}")
        if self.se is not None and not 0 < self.se < float("inf"):
            raise UsageError(f"--until-se takes a standard error greater than 0, got {self.se:g}")

    @property
    def asks(self) -> bool:
        """Whether samplers are compared, and dropped where they are beaten."""
        return self.tie is not None or self.se is not None

    def __str__(self) -> str:
        parts = {"--until-tie": self.tie, "--until-se": self.se, "--budget": self.budget}
        units = {"--budget": "s"}
        given = {name: value for name, value in parts.items() if value is not None}
        return " ".join(f"{name} {value:g}{units.get(name, '')}" for name, value in given.items())


DECIDED: tuple[Outcome, ...] = ("beaten", "best", "unscored")
"""Outcomes that no other question would change; samples of the others are kept, to be drawn on from."""


def looks(most: int, first: int = FIRST) -> tuple[int, ...]:
    """Return the numbers of samples of the rounds: each twice the one before it, the last at most ``most``.

    With J = floor(log2(most / first)) the first is floor(most / 2^J), at least ``first`` and less than twice
    as many.
    """
    doublings = max(0, (most // first).bit_length() - 1)
    return tuple((most >> doublings) << times for times in range(doublings + 1))


def first_look(metric: Metric, dim: int) -> int:
    """Return the fewest samples of the first round for a score: twice its features where it needs moments.

    The covariance of fewer samples than features is singular, and nothing is claimed of such scores.
    """
    return max(FIRST, 2 * dim if metric.needs == "moments" else 0)


@dataclass(frozen=True)
class Standing:
    """What became of a trial in a column at a look.

    Attributes:
        outcome: why its drawing ended.
        by: the trial that it lost against or ties with.
    """

    outcome: Outcome
    by: Trial | None = None


def standings(
    rule: Rule, boundary: Boundary, scores: Mapping[Trial, Score], last: bool
) -> dict[Trial, Standing]:
    """Return what became of those trials of a column whose drawing ends at a look.

    Args:
        rule: what was asked.
        boundary: what it takes to claim something.
        scores: the scores of the trials that are left, all of one n.
        last: whether there is no further look.
    """
    ended = dict[Trial, Standing]()
    if rule.asks and scores:
        sign = -1 if next(iter(scores.values())).higher_is_better else 1
        leader = min(scores, key=lambda trial: sign * estimate(scores[trial]))
        top = scores[leader]
        others = [trial for trial in scores if trial != leader]
        ended |= {one: Standing("beaten", leader) for one in others if boundary.beaten(scores[one], top)}
        left = [one for one in others if one not in ended]
        if rule.se is not None:
            ended |= {one: Standing("precise") for one in (leader, *left) if scores[one].se <= rule.se}
        elif not left:
            ended[leader] = Standing("best")
        elif rule.tie is not None and all(boundary.tied(scores[one], top, rule.tie) for one in left):
            ended |= {one: Standing("tied", leader) for one in left}
            ended[leader] = Standing("tied", left[0])
    if last:
        ended |= {one: Standing("most") for one in scores if one not in ended}
    return ended


@dataclass
class Column:
    """The trials that compete under one head of the table.

    Attributes:
        open: those still drawn, each at n = 0: the same at every number of samples.
        rivals: how many had a score after the first round.
    """

    open: set[Trial]
    rivals: int = 0


@dataclass(frozen=True)
class RoundCost:
    """What a round took and the next will, in seconds.

    Attributes:
        an_image: what drawing and scoring one image takes, by trial.
        a_trial: what a trial takes besides: its jackknife, its files.
        devices: number of devices that share the images.
    """

    an_image: Mapping[Trial, float]
    a_trial: float
    devices: int

    def seconds(self, images: Mapping[Trial, int]) -> float:
        """Return what so many more images of some trials will take."""
        drawn = sum(self.an_image.get(trial, 0.0) * count for trial, count in images.items())
        return drawn / self.devices + self.a_trial * sum(count > 0 for count in images.values())


@dataclass
class Rounds:
    """A sweep in rounds.

    What a round made is recorded as a sweep of its n is, so that a run that was killed goes on at the round,
    the trial and the block where it was, and claims what it would have claimed.

    Attributes:
        runner: the sweep; its n is the most that a trial gets.
        rule: when to stop.
        say: told in a sentence what each round is about.
        elapsed: seconds of the budget spent so far.
        looks: numbers of samples of the rounds.
    """

    runner: Runner
    rule: Rule
    say: Callable[[str], None] = lambda sentence: None
    elapsed: Callable[[], float] = lambda: 0.0

    def __post_init__(self) -> None:
        metric = self.runner.scoring.metrics[0]
        first = first_look(metric, self.runner.worker.spaces[metric.space].dim)
        self.looks = looks(self.runner.sweep.n, first)
        self._columns: dict[int, Column] = {}
        self._made: dict[Trial, dict[int, Record]] = {}
        self._labels: dict[Trial, str] = {}
        self._cost: RoundCost | None = None

    @property
    def most(self) -> int:
        """Number of samples of the last round."""
        return self.looks[-1]

    def plan(self, look: int = 0) -> Plan[SampledCell]:
        """Return what a round has to compute if nothing is dropped before it.

        Raises:
            UsageError: as `Runner.plan`.
        """
        return self.runner.at(self.looks[look]).plan()

    def run(self, observer: Callable[[], AbstractContextManager[Observer]]) -> list[Record]:
        """Draw the rounds and return the records of every trial, in the plan's order, each round's in turn.

        Args:
            observer: makes what is told of a round's progress.

        Raises:
            BenchError: as `Runner.run`.
            UsageError: if the score has no standard error to decide by.
        """
        whole = self.plan()
        for head, cells in self.runner.at(self.looks[0]).columns(whole).items():
            self._columns[head] = Column({cell.trial.at_any_n for cell in cells})
        several = len(self.runner.sweep.spacings) > 1
        for cell in (entry.cell for entry in whole.entries):
            grid = f" on {cell.trial.spacing}" if several else ""
            self._labels[cell.trial.at_any_n] = cell.row.label + grid
        for look in range(len(self.looks)):
            self._round(look, observer)
            if not any(column.open for column in self._columns.values()):
                break
        every = [self._made[entry.cell.trial.at_any_n] for entry in whole.entries]
        return [record for of_trial in every for record in of_trial.values()]

    def _round(self, look: int, observer: Callable[[], AbstractContextManager[Observer]]) -> None:
        n, last = self.looks[look], look + 1 == len(self.looks)
        here = self.runner.at(n, None if last else self.looks[look + 1])
        plan = self._affordable(look, here.plan())
        if not plan.entries:
            return
        self.say(
            f"round {look + 1} of at most {len(self.looks)}: n = {n:,}, {len(plan.entries)} of"
            f" {len(self._labels)} trials"
        )
        began = time.perf_counter()
        with observer() as told:
            records = here.run(plan, told)
        self._measure(plan, records, time.perf_counter() - began)
        for record in records:
            self._made.setdefault(record.trial.at_any_n, {})[n] = record
        for column in self._columns.values():
            self._judge(column, last)
        on = self._open()
        for record in records:
            trial = record.trial.at_any_n
            if trial in on:
                self._note(trial, Standing("continued"))
        if on:
            self._say_fits(look)
        if not last:
            noted = [self._latest(record.trial.at_any_n) for record in records]
            over = (r.trial for r in noted if r.stopping is not None and r.stopping.outcome in DECIDED)
            self.runner.at(self.looks[look + 1]).forget(over)

    def _say_fits(self, look: int) -> None:
        """Say, from what a round took, how many samples of every trial that is left the time allows."""
        if self.rule.budget is None or self._cost is None:
            return
        spent, on = self.elapsed(), self._open()
        allowed, seconds = self.looks[look], spent
        for before, n in itertools.pairwise(self.looks[look:]):
            seconds += self._cost.seconds(dict.fromkeys(on, n - before))
            if seconds <= self.rule.budget:
                allowed = n
        self.say(
            f"{spent:.0f} of {self.rule.budget:.0f} s spent; at this pace n = {allowed:,} fits for the trials"
            f" left: {len(on)}"
        )

    def _judge(self, column: Column, last: bool) -> None:
        metric = self.runner.scoring.metrics[0].name
        there = {trial: self._latest(trial) for trial in column.open}
        scores = {t: r.scores[metric] for t, r in there.items() if r.status == "done" and metric in r.scores}
        if self.rule.asks and (bare := [s for s in scores.values() if len(s.leave_one_out) < 2]):
            raise UsageError(f"{bare[0].metric} has no standard error to decide by; give --n alone")
        column.rivals = column.rivals or len(scores)
        boundary = Boundary(column.rivals, len(self.looks))
        ended = standings(self.rule, boundary, scores, last)
        ended |= {trial: Standing("unscored") for trial in there if trial not in scores}
        column.open = {trial for trial in scores if trial not in ended}
        on = self._open()
        for trial, standing in ended.items():
            if trial not in on:
                self._note(trial, standing)

    def _affordable(self, look: int, plan: Plan[SampledCell]) -> Plan[SampledCell]:
        """Return what is left of a plan: trials still open, and of these the columns that the time allows."""
        n, before = self.looks[look], self.looks[look - 1] if look else 0
        pending = {cell.trial.at_any_n for cell in plan.pending}
        chosen, seconds = set[Trial](), self.elapsed() if self.rule.budget is not None else 0.0
        for column, cost in self._by_cost(pending, n - before):
            if look and self.rule.budget is not None and seconds + cost(chosen) > self.rule.budget:
                self._close(column)
            else:
                seconds += cost(chosen)
                chosen |= column.open
        chosen &= self._open()
        return Plan([e for e in plan.entries if e.cell.trial.at_any_n in chosen], plan.unreadable)

    def _by_cost(
        self, pending: set[Trial], images: int
    ) -> list[tuple[Column, Callable[[set[Trial]], float]]]:
        """Return the open columns with what the next round costs each, given what is drawn anyway."""

        def cost_of(column: Column) -> Callable[[set[Trial]], float]:
            def cost(drawn: set[Trial]) -> float:
                left = (column.open & pending) - drawn
                return self._cost.seconds(dict.fromkeys(left, images)) if self._cost else 0.0

            return cost

        found = [(column, cost_of(column)) for column in self._columns.values() if column.open]
        return sorted(found, key=lambda item: item[1](set()))

    def _close(self, column: Column) -> None:
        """End a column whose next round the time does not allow."""
        closed, column.open = column.open, set()
        for trial in closed - self._open():
            self._note(trial, Standing("time"))

    def _measure(self, plan: Plan[SampledCell], records: Iterable[Record], seconds: float) -> None:
        """Learn from a round what an image of every trial takes, and a trial besides."""
        made = {record.key: record for record in records}
        known = {**(self._cost.an_image if self._cost else {})}
        for record in made.values():
            if record.cost is not None:
                cost = record.cost
                spent = cost.sampling_seconds + cost.decoding_seconds + cost.scoring_seconds
                known[record.trial.at_any_n] = spent / record.trial.n
        devices = len(self.runner.sweep.devices)
        drawn = [made[cell.key] for cell in plan.pending if cell.key in made]
        if not drawn:
            self._cost = self._cost or RoundCost(known, 0.0, devices)
            return
        before = max((n for n in self.looks if n < drawn[0].trial.n), default=0)
        images = sum(known.get(r.trial.at_any_n, 0.0) * (r.trial.n - before) for r in drawn) / devices
        self._cost = RoundCost(known, max(0.0, seconds - images) / len(drawn), devices)

    def _open(self) -> set[Trial]:
        return {trial for column in self._columns.values() for trial in column.open}

    def _latest(self, trial: Trial) -> Record:
        made = self._made[trial]
        return made[max(made)]

    def _note(self, trial: Trial, standing: Standing) -> None:
        """Write into the record of a trial what became of it."""
        record = self._latest(trial)
        by = self._labels[standing.by] if standing.by is not None else ""
        level = ALPHA if self.rule.asks else 0.0
        told = StopInfo(str(self.rule), self.looks, level, standing.outcome, by)
        if record.stopping != told:
            record = replace(record, stopping=told)
            self.runner.store.write(record)
            self._made[trial][record.trial.n] = record
