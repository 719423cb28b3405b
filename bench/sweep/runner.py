"""The sweep: what is to be computed, what is there already, and the loop between."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import torch

from bench.data.images import from_uint8, to_uint8
from bench.data.sets import content_hash
from bench.diffusion.film import forward_film
from bench.diffusion.grid import Grid, make_grid
from bench.diffusion.noise import INITIAL, normal_noise
from bench.diffusion.sampling import Sampler, get_sampler
from bench.errors import BenchError
from bench.files.source import code_hash
from bench.metrics.groups import GroupedStatistics
from bench.metrics.influence import influence_of
from bench.metrics.measuring import Progress
from bench.metrics.metric import Metric
from bench.plugins.loading import registry
from bench.plugins.lookup import find_card
from bench.records.provenance import environment, grid_hash, short_hash
from bench.records.record import FLOOR, GridInfo, ModelInfo, Record, RowInfo, Stale, stale_fields
from bench.records.store import Store
from bench.records.trial import PREVIEWS, BlockResult, Failure, Task, Trial, WorkerSetup
from bench.stats.resampling import influence_se, jackknife
from bench.stats.score import Score
from bench.sweep.collect import Collected
from bench.sweep.heads import head_of
from bench.sweep.references import References, held_out_hashes, with_held_out
from bench.sweep.request import Plan, Sweep
from bench.sweep.worker import Worker, draw, worker

FLOOR_FOLDS = 5
"""Sets of real images whose mean score is the floor: one set is a lottery ticket."""


class Observer(Protocol):
    """Told what happens, to show it."""

    def planned(self, plan: Plan) -> None:
        """The plan is made."""

    def advanced(self, trial: Trial, samples: int) -> None:
        """So many more samples of a trial are drawn, or were found drawn."""

    def ended(self, record: Record) -> None:
        """A trial has its record."""


class Runner:
    """A sweep with its model loaded.

    Args:
        sweep: what was asked for.
        store: where records are.
        progress: called with the number of reference images measured and of all, where any are.

    Raises:
        UsageError: if the sweep asks for something that cannot be.
        BenchError: if the model cannot be loaded.
    """

    def __init__(self, sweep: Sweep, store: Store, progress: Progress | None = None) -> None:
        self.sweep, self.store = sweep, store
        for file in sweep.plugins:
            registry().load_file(file)
        names = sweep.metrics or find_card(sweep.model).metrics
        self.setup = WorkerSetup(sweep.model, sweep.reference, names, sweep.plugins, sweep.keep_features)
        self.worker: Worker = worker(self.setup, sweep.devices[0])
        self.loaded = self.worker.loaded
        spaces, device = self.worker.spaces, self.worker.device
        self.metrics: list[Metric] = [
            with_held_out(self.loaded, metric, spaces[metric.space], device)
            for metric in map(registry().metrics.get, names)
        ]
        self.references = References(self.loaded, self.metrics, spaces, device, progress)

    def measure_references(self) -> None:
        """Measure the references that are not cached; without this the first score does it."""
        for metric in self.metrics:
            self.references[metric.name]

    def plan(self) -> Plan:
        """Return what is to be computed.

        Raises:
            UsageError: if a number of steps does not fit the model's schedule.
        """
        plan = Plan()
        records, plan.unreadable = self.store.read()
        known = {record.key: record for record in records}
        for steps in self.sweep.steps:
            for sampler in self.sweep.samplers:
                trial = self._trial(sampler.spec, steps)
                if trial.key in plan.provenance:
                    continue
                plan.trials.append(trial)
                plan.grids[trial.key] = make_grid(
                    self.loaded.model.schedule, steps, self.sweep.spacing_of(steps)
                )
                plan.provenance[trial.key] = self._provenance(sampler, plan.grids[trial.key])
                self._place(plan, trial, known.get(trial.key))
        return plan

    def _place(self, plan: Plan, trial: Trial, record: Record | None) -> None:
        """File a trial under what its record is worth."""
        if record is not None and record.status != "failed":
            changed = stale_fields(record, plan.provenance[trial.key])
            if changed:
                plan.stale.append(Stale(record, changed))
            elif self.sweep.keep_features and not self.store.has_features(record, self.worker.spaces):
                plan.featureless.append(record)
            else:
                plan.reused[trial.key] = record
                return
        plan.pending.append(trial)

    def run(self, plan: Plan, observer: Observer) -> list[Record]:
        """Compute what is pending and return the record of every trial, in the plan's order.

        Raises:
            BenchError: at the first failure if the sweep is strict; if results cannot be written.
        """
        self.store.prepare()
        made = dict(plan.reused)
        for record in self._compute(plan, observer):
            made[record.key] = record
            observer.ended(record)
            if self.sweep.strict and record.status == "failed":
                raise BenchError(f"{record.title}: {record.message}")
        return [made[trial.key] for trial in plan.trials]

    def floor(self) -> Record | None:
        """Return the score of real images in the place of samples, or None where there are none.

        Sampling error alone keeps n images of the very law at this distance from the reference. It is the
        mean over up to `FLOOR_FOLDS` disjoint sets of n images. A metric that fails is left out, and said in
        the record's message: the trials' records tell more.
        """
        if self.loaded.floor is None:
            return None
        sets = [self.loaded.floor(self.sweep.n, fold) for fold in range(FLOOR_FOLDS)]
        first = sets[0]
        sets = [images for images in sets if len(images) == len(first)]
        trial = self._trial(FLOOR, 0, n=len(first))
        known = {record.key: record for record in self.store.read()[0]}.get(trial.key)
        real = content_hash(torch.cat(sets))
        provenance = {**self._common_provenance, "real images": real}
        if known is not None and not known.message and not stale_fields(known, provenance):
            return known
        folds, failures = [], []
        for images in sets:
            scores, failed = self._scores(self._real_statistics(images, trial))
            folds.append(scores)
            failures += failed
        names = [name for name in folds[0] if all(name in scores for scores in folds)]
        if not names:
            return None
        record = Record(
            kind="real",
            trial=trial,
            status="done",
            message=failures[0].message if failures else "",
            sampler=RowInfo(label=FLOOR),
            model=ModelInfo(self.loaded.weights_hash),
            grid=GridInfo(folds=len(folds)),
            provenance=provenance,
            scores={name: mean_score([scores[name] for scores in folds]) for name in names},
            environment=environment(self.sweep.devices[0]),
        )
        self.store.prepare()
        film = forward_film(
            from_uint8(first[0]),
            self.loaded.model.schedule,
            normal_noise(trial.seed, range(1), INITIAL, self.loaded.model.shape)[0],
        )
        self.store.write(record, first[:PREVIEWS], film)
        return record

    def _real_statistics(self, images: torch.Tensor, trial: Trial) -> dict[str, GroupedStatistics]:
        with torch.inference_mode():
            parts = [self.worker.measure(images[b.start : b.stop], b, trial.n) for b in trial.blocks]
        total = parts[0]
        for part in parts[1:]:
            for space, sums in part.items():
                total[space].merge(sums)
        return total

    def _compute(self, plan: Plan, observer: Observer) -> Iterator[Record]:
        states = {trial.key: block_state(plan.provenance[trial.key]) for trial in plan.pending}
        keep = self.worker.keep_features
        collected = {trial.key: Collected(trial, keep) for trial in plan.pending}
        tasks: list[Task] = []
        for trial in plan.pending:
            for result in self.store.read_blocks(trial, states[trial.key]):
                if collected[trial.key].fits(result):
                    collected[trial.key].add(result)
                    observer.advanced(trial, len(result.block))
        observer.planned(plan)
        for trial in plan.pending:
            tasks += [Task(trial, block) for block in collected[trial.key].missing()]
        for trial in plan.pending:
            if collected[trial.key].whole:
                yield self._finish(trial, plan, collected.pop(trial.key).prefix)
        executor = registry().executors.get(self.sweep.executor)
        outcomes = executor.run(
            _interleaved(tasks), self.setup, self.sweep.devices, lambda task: task.trial.key in collected
        )
        for task, outcome in outcomes:
            trial = task.trial
            mine = collected.get(trial.key)
            if mine is None:  # it failed while this block was being drawn elsewhere
                continue
            if isinstance(outcome, Failure):
                del collected[trial.key]
                yield self._fail(trial, plan, outcome)
                continue
            self.store.write_block(trial, states[trial.key], outcome)
            observer.advanced(trial, len(outcome.block))
            mine.add(outcome)
            if mine.whole:
                yield self._finish(trial, plan, collected.pop(trial.key).prefix)
            elif mine.due:
                self.store.compact_blocks(trial, states[trial.key], mine.compacted())

    def _finish(self, trial: Trial, plan: Plan, result: BlockResult | None) -> Record:
        """Score a trial; where a metric fails the others' scores are kept, and the blocks to score again."""
        assert result is not None  # the trial is whole
        scores, failures = self._scores(result.statistics)
        record = replace(self._head(trial, plan), scores=scores, cost=result.cost)
        record = record.failed(failures[0]) if failures else record
        self.store.drop_features(record)
        if self.sweep.keep_features:
            record = self._keep_features(record, result.statistics)
        self.store.write(record, result.previews, result.film)
        return record

    def _keep_features(self, record: Record, statistics: Mapping[str, GroupedStatistics]) -> Record:
        """Keep features and influence values beside a record; return it with the errors that these give."""
        for space, sums in statistics.items():
            self.store.write_features(record, space, sums.features)
        scores = dict(record.scores)
        for metric in self.metrics:
            if metric.name not in scores:
                continue
            values = influence_of(metric, statistics[metric.space], self.references[metric.name])
            if values is not None:
                self.store.write_influence(record, metric.name, values)
                scores[metric.name] = replace(scores[metric.name], influence_se=influence_se(values))
        return replace(record, scores=scores)

    def _fail(self, trial: Trial, plan: Plan, failure: Failure) -> Record:
        record = self._head(trial, plan).failed(failure)
        self.store.drop_features(record)
        self.store.write(record)
        return record

    def _head(self, trial: Trial, plan: Plan) -> Record:
        sampler = get_sampler(trial.sampler)
        origin = registry().samplers.origins[sampler.name]
        row = RowInfo(
            sampler.name,
            sampler.label,
            dict(sampler.parameters),
            sampler.order,
            sampler.source,
            origin.plugin,
            origin.version,
        )
        grid, provenance = plan.grids[trial.key], plan.provenance[trial.key]
        return head_of("samples", trial, row, grid, self.loaded, provenance, self.sweep.devices[0])

    def _scores(self, statistics: Mapping[str, GroupedStatistics]) -> tuple[dict[str, Score], list[Failure]]:
        """Return the scores, and why a metric gave none."""
        scores, failures = dict[str, Score](), list[Failure]()
        for metric in self.metrics:
            if metric.space not in statistics:
                continue
            try:
                scores[metric.name] = metric.score(statistics[metric.space], self.references[metric.name])
            except Exception as error:
                failures.append(Failure.of(error, f"metric {metric.name}"))
        return scores, failures

    def _trial(self, sampler: str, steps: int, n: int | None = None) -> Trial:
        sweep = self.sweep
        n = sweep.n if n is None else n
        batch = min(sweep.batch or self.loaded.card.batch, n)
        names = tuple(metric.name for metric in self.metrics)
        device = torch.device(sweep.devices[0]).type
        return Trial(
            model=sweep.model,
            sampler=sampler,
            spacing=sweep.spacing_of(steps),
            steps=steps,
            n=n,
            seed=sweep.seed,
            batch=batch,
            precision=sweep.precision,
            device=device,
            metrics=names,
            reference=sweep.reference,
        )

    def _provenance(self, sampler: Sampler, grid: Grid) -> dict[str, Any]:
        own = {"time steps": grid_hash(grid), "code of the sampler": code_hash(sampler.function)}
        return {**self._common_provenance, **own}

    @cached_property
    def _common_provenance(self) -> dict[str, Any]:
        spaces = self.worker.spaces
        return {
            "weights": self.loaded.weights_hash,
            "code of the model": code_hash(self.loaded.model),
            "code that draws": code_hash(draw, to_uint8),
            **{f"reference of {name}": hash_ for name, hash_ in self.references.hashes.items()},
            **{f"held-out images of {name}": hash_ for name, hash_ in held_out_hashes(self.metrics).items()},
            **{f"code of metric {m.name}": code_hash(type(m), GroupedStatistics) for m in self.metrics},
            **{f"feature space of {m.name}": spaces[m.space].fingerprint for m in self.metrics},
            **{f"code of the feature space of {m.name}": code_hash(spaces[m.space]) for m in self.metrics},
        }


def block_state(provenance: Mapping[str, Any]) -> str:
    """Return a hash of what decides a trial's blocks: all of its provenance but how features are scored."""
    scoring = ("reference of ", "held-out images of ", "code of metric ")
    return short_hash({name: value for name, value in provenance.items() if not name.startswith(scoring)})


def mean_score(scores: Sequence[Score]) -> Score:
    """Return the mean of scores of independent samples of one size, with its standard error.

    What a score's error holds beyond its own jackknife is the reference's, which all of them share: it does
    not shrink with their number.
    """
    k = len(scores)
    own = [jackknife(score.value, score.leave_one_out).se for score in scores]
    own = [score.se if math.isnan(se) else min(se, score.se) for score, se in zip(scores, own, strict=True)]
    shared = sum(score.se**2 - se**2 for score, se in zip(scores, own, strict=True)) / k
    return replace(
        scores[0],
        value=sum(score.value for score in scores) / k,
        debiased=sum(score.debiased for score in scores) / k,
        se=math.sqrt(sum(se**2 for se in own) / k**2 + shared),
        leave_one_out=(),
        flags=tuple(dict.fromkeys(flag for score in scores for flag in score.flags)),
    )


def _interleaved(tasks: Sequence[Task]) -> list[Task]:
    """Order blocks so that the trials of one S take turns: the machine's drift then hits all alike."""
    return sorted(tasks, key=lambda task: (task.trial.steps, task.block.start))
