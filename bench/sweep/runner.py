"""The sweep: what is to be computed, what is there already, and the loop between."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import torch

from bench.data.images import from_uint8, to_uint8
from bench.data.sets import content_hash, count_shared, load_images
from bench.device.modes import EAGER
from bench.diffusion.calls import count_calls
from bench.diffusion.film import forward_film
from bench.diffusion.grid import Grid, grid_for
from bench.diffusion.learned import tuning_calls
from bench.diffusion.noise import TrajectoryNoise
from bench.diffusion.sampling import Parameter, Sampler
from bench.diffusion.stages import images_of, latents_of
from bench.errors import BenchError, NotApplicable, UsageError
from bench.files.digests import file_digest
from bench.files.source import code_hash
from bench.metrics.groups import GroupedStatistics
from bench.metrics.measuring import Progress
from bench.metrics.metric import check_enough
from bench.plugins.executor import Outcome
from bench.plugins.loading import registry
from bench.plugins.lookup import get_executor, shuffled
from bench.plugins.objects import values_in
from bench.records import ledger
from bench.records.blocks import drop_blocks, write_block
from bench.records.ledger import Cell, Plan, block_folder
from bench.records.provenance import grid_hash, short_hash
from bench.records.record import (
    FLOOR,
    SPLIT_OFF,
    DrawingInfo,
    GridInfo,
    ImagesInfo,
    ModelInfo,
    Record,
    RowInfo,
)
from bench.records.running import Run
from bench.records.sharing import Share, alone_at
from bench.records.store import Store
from bench.records.trial import BlockResult, Failure, Trial, WorkerSetup, kept_of
from bench.stats.resampling import influence_se
from bench.sweep.admission import Compared, compare_images, compared_as, fewest_steps, is_as_it_is
from bench.sweep.choices import Choice, Chooser, Kept, key_of, refuse_lacking
from bench.sweep.readiness import ModeRefused
from bench.sweep.references import reference_images
from bench.sweep.request import AUTO, Sweep
from bench.sweep.scoring import Scoring, mean_of_scores
from bench.sweep.work import Work
from bench.sweep.worker import Worker, draw, worker

FLOOR_FOLDS = 5
"""Sets of real images whose mean score is the floor: one set is a lottery ticket."""

SPLIT = 5
"""At most a fifth of a reference is split off to stand in the place of samples: against the rest a distance
is larger by a few per cent at most."""


CHOICE_STEPS = 2
"""Steps of the grid at whose times modes and batches are measured: they cost the same at all times."""


@dataclass(frozen=True)
class SampledCell(Cell):
    """A cell of a sweep.

    Attributes:
        sampler: the rule.
        walk: the steps that it takes.
    """

    sampler: Sampler
    walk: Grid


class Observer(Protocol):
    """Told what happens, to show it."""

    def planned(self, plan: Plan[SampledCell]) -> None:
        """The plan is made."""

    def advanced(self, trial: Trial, samples: int) -> None:
        """So many more samples of a trial are drawn, or were found drawn."""

    def ended(self, record: Record) -> None:
        """A trial has its record."""

    def waiting(self, runs: Sequence[Run]) -> None:
        """Nothing is left to do but what other runs are at; told again until they have done it."""


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
        self.store = store
        for file in sweep.plugins:
            registry().load_file(file)
        self.setup = WorkerSetup(
            sweep.model,
            sweep.reference,
            sweep.metrics,
            sweep.plugins,
            sweep.keep_features,
            sweep.held_out,
            sweep.timeout,
            sweep.auto_batch,
        )
        refuse_lacking(sweep)
        self.worker: Worker = worker(self.setup, sweep.devices_here[0])
        self.loaded = self.worker.loaded
        self.sweep = sweep.fitted_to(self.loaded.model)
        self._asked = sweep
        self._larger: Runner | None = None
        self._changes: dict[str, dict[str, None]] = {}
        self._machines: dict[str, set[str]] = {}
        self.metrics = sweep.metrics or self.loaded.metrics
        self.scoring = Scoring(self.metrics, self.worker, progress)
        self._compared: dict[tuple[str, str, str], Compared] = {}
        self._chosen: tuple[str, ...] = ()
        if self.sweep.mode == AUTO or self.sweep.auto_batch:
            choice = self._choice()
            self._chosen = choice.told
            self.sweep = choice.of(self.sweep)

    def _choice(self) -> Choice:
        """Return the batch and the mode of a sweep that leaves them open, as found before or found now."""
        key, kept = key_of(self.sweep, self.loaded.weights_hash), Kept(self.store.folder)
        if (known := kept.read(key)) is not None:
            return known
        chooser = Chooser(self.sweep, self.worker, grid_for(self.loaded.model, CHOICE_STEPS, "uniform"))
        choice = chooser.choose(self._admits)
        kept.write(key, choice)
        return choice

    def _admits(self, choice: Choice) -> str:
        """Return why a mode is refused by the images that the sweep's samplers draw in it; empty if not."""
        other = copy(self)
        other.sweep = choice.of(self.sweep)
        cells = other._within_calls() if self.sweep.calls else other._of_steps()
        try:
            other._admit(cell.trial for cell in cells)
        except ModeRefused as refused:
            return str(refused)
        return ""

    def _admit(self, trials: Iterable[Trial]) -> None:
        """Hold the images of trials whose network is not run as it is to those of the network as it is.

        Raises:
            ModeRefused: if they differ by too much.
        """
        new = [one for one in trials if not is_as_it_is(one) and compared_as(one) not in self._compared]
        if not new:
            return
        executor = get_executor(self.sweep.executor)
        run = partial(executor.run, setup=self.setup, devices=self.sweep.devices, wanted=lambda task: True)
        self._compared |= compare_images(fewest_steps(new), run)

    def _drawing(self, trial: Trial, batch: int | None) -> DrawingInfo | None:
        """Return what a record says of how the network was run; None where it was run as it is."""
        compared = self._compared.get(compared_as(trial))
        if compared is None and batch is None:
            return None
        return replace(compared.info if compared is not None else DrawingInfo(), batch=batch)

    def at(self, n: int, larger: int | None = None) -> Runner:
        """Return a runner of the same sweep, with the same model and references, at another n.

        Args:
            n: samples a trial.
            larger: a multiple of n that may be drawn next: what is drawn for n is then kept for it as well.
        """
        other = copy(self)
        other.sweep = replace(self.sweep, n=n)
        other._asked = replace(self._asked, n=n)
        for name in ("_split", "_of_budgets"):  # what depends on n
            other.__dict__.pop(name, None)
        other._larger = None if larger is None else self.at(larger)
        return other

    def plan(self) -> Plan[SampledCell]:
        """Return what is to be computed.

        Raises:
            UsageError: if a number of steps does not fit the model's schedule, or samples or reference images
                are too few for a metric.
        """
        get_executor(self.sweep.executor)  # an unknown name is told before anything is done
        for metric in self.scoring.metrics:
            check_enough(metric, self.sweep.n, self.scoring.references.count)
        cells = self._within_calls() if self.sweep.calls else self._of_steps()
        if not cells:
            raise UsageError(
                "nothing is left to run: give --steps with numbers that the samplers and time grids can take"
            )
        place, shards = self.sweep.shard
        return ledger.plan(self.store, cells[place - 1 :: shards], self._missing)

    def _of_steps(self) -> list[SampledCell]:
        return [self._cell(*trial) for trial in self.sweep.trials()]

    def _within_calls(self) -> list[SampledCell]:
        """Return the cells that cost the most network calls within each budget, every one once."""
        found: dict[str, SampledCell] = {}
        for _, cell in self._of_budgets:
            found.setdefault(cell.key, cell)
        return list(found.values())

    @cached_property
    def _of_budgets(self) -> list[tuple[int, SampledCell]]:
        calls = cache(self._calls)
        found: list[tuple[int, SampledCell]] = []
        for budget, spacing, sampler in product(self.sweep.calls, self.sweep.spacings, self.sweep.samplers):
            fitting = (s for s in range(budget, 0, -1) if spacing in self.sweep.spacings_of(s))
            steps = next((s for s in fitting if calls(sampler, s, spacing) <= budget), None)
            if steps is not None:
                found.append((budget, self._cell(sampler, steps, spacing)))
        return found

    def columns(self, plan: Plan[SampledCell]) -> dict[int, list[SampledCell]]:
        """Return the cells that compete, by what heads their column: network calls asked for, else S."""
        cells = [entry.cell for entry in plan.entries]
        headed = self._of_budgets if self.sweep.calls else [(cell.trial.steps, cell) for cell in cells]
        return {head: [cell for other, cell in headed if other == head] for head, _ in headed}

    def _calls(self, sampler: Sampler, steps: int, spacing: str) -> int:
        try:
            return count_calls(self.loaded.model, sampler, grid_for(self.loaded.model, steps, spacing))
        except NotApplicable:
            return 0  # planned, so that the table says why it is skipped

    def notes(self, plan: Plan[SampledCell]) -> Iterator[str]:
        """Yield a sentence for everything that is done other than it was asked for, or was found out."""
        yield from self._chosen
        if self.sweep.steps != self._asked.steps:
            steps = ", ".join(map(str, self.sweep.steps))
            yield f"the model has {self.sweep.steps[-1]} time steps: S = {steps}"
        clipped = [one.label for one in self._asked.samplers if one not in self.sweep.samplers]
        if clipped:
            yield f"latents are not bound to [-1, 1] as images are: clip=none for {', '.join(clipped)}"
        yield from (f"reference: {remark}" for remark in self.scoring.references.remarks)
        yield from self._said_of_steps_left_out()
        taken: dict[str, dict[int, int]] = {}
        for entry in plan.entries:
            trial = entry.cell.trial
            taken.setdefault(trial.spacing, {})[trial.steps] = len(entry.cell.walk)
        for spacing, counts in taken.items():
            if others := [f"{count} for S={asked}" for asked, count in counts.items() if count != asked]:
                yield f"spacing {spacing} takes another number of steps: {', '.join(others)}"
        moved = [entry.cell.walk.moved for entry in plan.entries if entry.cell.walk.moved]
        if moved:
            trials = f"{len(moved)} trials take" if len(moved) > 1 else "1 trial takes"
            far = f"by up to {max(moved):.2g}"
            yield f"{trials} times rounded to time steps, {far}: the model takes no others"
        yield from self._said_of_real_images()

    def _said_of_steps_left_out(self) -> Iterator[str]:
        """Yield which samplers are left out at numbers of steps that they are not made for."""
        left: dict[tuple[int, ...], list[str]] = {}
        for sampler in self.sweep.samplers:
            beyond = tuple(steps for steps in self.sweep.steps if self.sweep.too_many(sampler, steps))
            left.setdefault(beyond, []).append(sampler.label)
        for beyond, labels in left.items():
            if beyond:
                many = ", ".join(map(str, beyond))
                yield (
                    f"left out at S={many}, being made for fewer steps: {', '.join(labels)};"
                    f" --steps {many} runs them there"
                )

    def _missing(self, record: Record) -> str:
        kept = not self.sweep.keep_features or self.store.has_features(record, self.worker.spaces)
        return "" if kept else "features"

    def run(self, plan: Plan[SampledCell], observer: Observer) -> list[Record]:
        """Compute what is pending and return the record of every trial, in the plan's order.

        Other runs in the folder share the work: each block is drawn by one of them; see `Share`.

        Raises:
            BenchError: at the first failure if the sweep is strict; if results cannot be written.
        """
        self.store.prepare()
        ledger.drop_answered(self.store, plan)
        made = []
        with self.store.running, closing(self._compute(plan, observer)) as records:
            for record in records:
                made.append(record)
                observer.ended(record)
                if self.sweep.strict and record.status == "failed":
                    raise BenchError(f"{record.title}: {record.message}")
        return plan.answers(made)

    def changes(self) -> Iterator[str]:
        """Yield what was changed globally while blocks were drawn, a sentence for each sampler that did."""
        for label, names in self._changes.items():
            advice = "; noise comes from noise(index)" if any("generator" in one for one in names) else ""
            yield f"{label} changed {', '.join(names)}, put back after every block{advice}"

    def floor(self) -> Record | None:
        """Return the score of real images in the place of samples, or None where there are none.

        Sampling error alone keeps n images of the very law at this distance from the reference. It is the
        mean over up to `FLOOR_FOLDS` disjoint sets of n images. A metric that fails is left out, and said in
        the record's message: the trials' records tell more.

        Where nobody named such images some are split off the reference, and scored against the rest of it.
        """
        split = self._split
        sets = self._real_sets(split)
        if not sets:
            return None
        cell = self._floor_cell(sets, split)
        with alone_at(self.store, cell):
            known = ledger.plan(self.store, [cell], lambda record: record.message).reused
            return known[cell.key] if cell.key in known else self._measured_floor(cell, sets, split)

    def _measured_floor(
        self, cell: Cell, sets: Sequence[torch.Tensor], split: torch.Tensor | None
    ) -> Record | None:
        measured = [self.worker.measure_all(images, cell.trial.blocks) for images in sets]
        rest = None
        if split is not None:
            by_space = {space: [one[space] for one in measured] for space in measured[0]}
            rest = self.scoring.references.without(split.flatten(), by_space)
        scored = [self.scoring.scores(one, reference_of=rest) for one in measured]
        failures = [failure for _, failed in scored for failure in failed]
        names = [name for name in scored[0][0] if all(name in scores for scores, _ in scored)]
        if not names:
            return None
        means = {name: mean_of_scores([scores[name] for scores, _ in scored]) for name in names}
        record = replace(cell.record(), scores=means, message=failures[0].message if failures else "")
        self.store.prepare()
        self.store.write(record, kept_of(sets[0]), self._forward_film(sets[0][:1]))
        return record

    @cached_property
    def _split(self) -> torch.Tensor | None:
        """The numbers of the reference's images that are split off, (sets, n); None where none are."""
        count, n = self.scoring.references.count, self.sweep.n
        folds = min(FLOOR_FOLDS, count // SPLIT // n)
        if self.loaded.floor is not None or not folds:
            return None
        return shuffled(count)[: folds * n].view(folds, n)

    def _real_sets(self, split: torch.Tensor | None) -> list[torch.Tensor]:
        if split is not None:
            images = reference_images(self.loaded).images()
            return [images[places] for places in split]
        if self.loaded.floor is None:
            return []
        sets = [self.loaded.floor(self.sweep.n, fold) for fold in range(FLOOR_FOLDS)]
        return [images for images in sets if len(images) == len(sets[0])]

    def _said_of_real_images(self) -> Iterator[str]:
        """Yield how the row of real images comes about, where nobody named such images."""
        reference, split = self.loaded.reference, self._split
        if self.sweep.held_out is not None and self.scoring.references.count:
            there = load_images(self.sweep.held_out, strict=True).images
            if shared := count_shared(there, reference_images(self.loaded).images()):
                yield (
                    f"{shared:,} of the {len(there):,} images of {self.sweep.held_out} are in the reference"
                    " too: the row of real images is too good by them"
                )
        if self.loaded.floor is not None or reference is None:
            return
        name, count, n = reference.name, self.scoring.references.count, self.sweep.n
        if split is not None:
            yield (
                f"real images: {split.numel():,} of the {count:,} images of {name}, scored against the rest"
                " of them; --held-out IMAGES names others"
            )
        elif count:
            yield (
                f"no row of real images: {name} has {count:,} images, and {n:,} can be split off from"
                f" {SPLIT * n:,} on; give --held-out IMAGES"
            )
        else:
            yield f"no row of real images: no score is against images of {name}; give --held-out IMAGES"

    def _forward_film(self, images: torch.Tensor) -> torch.Tensor | None:
        """Return the first image on its way to noise; None where the model's x_0 of it is not known."""
        model = self.loaded.model
        device = self.worker.device
        with torch.inference_mode():
            x0 = latents_of(model, from_uint8(images).to(device))
            if x0 is None:
                return None
            noise = TrajectoryNoise(self.sweep.seed, range(1), model.shape, device).initial()
            film = forward_film(x0[0], model.schedule, noise[0], partial(images_of, model))
        return film.cpu()

    def _floor_cell(self, sets: Sequence[torch.Tensor], split: torch.Tensor | None) -> Cell:
        own = {"real images": content_hash(torch.cat(list(sets)))}
        if split is not None:
            own[SPLIT_OFF] = short_hash({"count": self.scoring.references.count, "places": split.tolist()})
        return Cell(
            kind="real",
            trial=replace(self._trial(FLOOR, 0, self.sweep.spacings[0], n=len(sets[0])), mode=EAGER),
            row=RowInfo(label=FLOOR),
            model=ModelInfo(self.loaded.weights_hash),
            grid=GridInfo(folds=len(sets)),
            provenance={**self._common_provenance, **own},
            device=self.sweep.devices_here[0],
        )

    def _compute(self, plan: Plan[SampledCell], observer: Observer) -> Generator[Record]:
        """Yield the record of every trial that is pending, whichever run in the folder makes it."""
        self._admit(cell.trial for cell in plan.pending)
        executor = get_executor(self.sweep.executor)
        with Share(self.store, plan.pending, self._missing) as share:
            work = Work(self.store, plan.pending, share, self.worker.keep_features, observer.advanced)
            observer.planned(plan)
            yield from work.ended(self._finish)
            while work.open:
                if tasks := work.tasks():
                    for task, outcome in executor.run(tasks, self.setup, self.sweep.devices, work.wanted):
                        self._note(work.cell_of(task), outcome)
                        work.put(task, outcome, self._fail)
                        yield from work.ended(self._finish)
                else:
                    observer.waiting(self.store.running.others())
                    work.wait()
                yield from work.ended(self._finish)

    def _note(self, cell: Cell, outcome: Outcome) -> None:
        """Note on which machine a block was drawn, and what was changed globally meanwhile."""
        if not isinstance(outcome, BlockResult):
            return
        self._machines.setdefault(cell.key, set()).add(outcome.machine)
        if outcome.changed:
            self._changes.setdefault(cell.row.label, {}).update(dict.fromkeys(outcome.changed))

    def _finish(self, cell: Cell, result: BlockResult) -> Record:
        """Score a trial; where a metric fails the others' scores are kept, and the blocks to score again."""
        if self._larger is not None and isinstance(cell, SampledCell):
            self._larger._take_over(cell, result)
        scores, failures = self.scoring.scores(result.statistics, result.levels)
        every = len(result.images) == cell.trial.block_count
        images = ImagesInfo.of(result.levels, result.images if every else ())
        drawing = self._drawing(cell.trial, result.batch)
        record = replace(cell.record(), images=images, scores=scores, cost=result.cost, drawing=drawing)
        record = record.failed(failures[0]) if failures else record
        if machines := sorted(filter(None, self._machines.pop(cell.key, ()))):
            drawn_on = replace(record.environment, device_name=", ".join(machines))
            record = replace(record, environment=drawn_on)
        self.store.drop_features(record)
        if self.sweep.keep_features:
            record = self._keep_features(record, result.statistics)
        self.store.write(record, result.previews, result.film)
        return record

    def _take_over(self, smaller: SampledCell, result: BlockResult) -> None:
        """Keep what a trial of fewer samples drew as the first block of the same trial here."""
        cell = self._cell(smaller.sampler, smaller.trial.steps, smaller.trial.spacing)
        first = result.as_part_of(cell.trial.n)
        write_block(block_folder(self.store, cell), first.block, first.to_arrays(), first.cost)

    def forget(self, trials: Iterable[Trial]) -> None:
        """Drop the blocks kept here of trials of whatever n, which will not be drawn on."""
        for trial in trials:
            here = self._trial(trial.sampler, trial.steps, trial.spacing)
            drop_blocks(self.store.blocks, here.key)

    def _keep_features(self, record: Record, statistics: Mapping[str, GroupedStatistics]) -> Record:
        """Keep features and influence values beside a record; return it with the errors that these give."""
        for space, sums in statistics.items():
            self.store.write_features(record, space, sums.features)
        scores = dict(record.scores)
        for name, values in self.scoring.influences(statistics, scores):
            self.store.write_influence(record, name, values)
            scores[name] = replace(scores[name], influence_se=influence_se(values))
        return replace(record, scores=scores)

    def _fail(self, cell: Cell, failure: Failure) -> Record:
        record = cell.record(failure)
        self.store.drop_features(record)
        self.store.write(record)
        return record

    def _cell(self, sampler: Sampler, steps: int, spacing: str) -> SampledCell:
        schedule = self.loaded.model.schedule
        walk = grid_for(self.loaded.model, steps, spacing)
        own = {
            "time steps": grid_hash(walk),
            "code of the sampler": code_hash(sampler.function),
            **_files_of(sampler),
            **_library_of(sampler),
            **values_in(sampler),
        }
        return SampledCell(
            kind="samples",
            trial=self._trial(sampler.spec, steps, spacing),
            row=_row_of(sampler),
            model=ModelInfo(self.loaded.weights_hash, schedule.name),
            grid=GridInfo(
                len(walk),
                walk.distinct_levels,
                moved=walk.moved or None,
                tuning_calls=_tuning_calls(sampler, spacing) or None,
            ),
            provenance={**self._common_provenance, **own},
            device=self.sweep.devices_here[0],
            sampler=sampler,
            walk=walk,
        )

    def _trial(self, sampler: str, steps: int, spacing: str, n: int | None = None) -> Trial:
        sweep = self.sweep
        n = sweep.n if n is None else n
        return Trial(
            model=sweep.model,
            sampler=sampler,
            spacing=spacing,
            steps=steps,
            n=n,
            seed=sweep.seed,
            batch=min(sweep.batch or self.loaded.card.batch, n),
            precision=sweep.precision,
            device=torch.device(sweep.devices[0]).type,
            metrics=self.metrics,
            reference=sweep.reference,
            mode=sweep.mode,
        )

    @cached_property
    def _common_provenance(self) -> dict[str, Any]:
        return {
            "weights": self.loaded.weights_hash,
            "code of the model": code_hash(*self.loaded.code),
            "code that draws": code_hash(draw, to_uint8),
            **self.scoring.provenance,
        }


def _row_of(sampler: Sampler) -> RowInfo:
    origin = registry().samplers.origins[sampler.name]
    return RowInfo(
        name=sampler.name,
        label=sampler.label,
        parameters={name: _written(value) for name, value in sampler.parameters.items()},
        place=sampler.place,
        order=sampler.order,
        source=sampler.source,
        plugin=origin.plugin,
        version=origin.version,
    )


def _files_of(sampler: Sampler) -> dict[str, str]:
    """Return the hash of every file that a sampler's parameters name: other contents, other samples."""
    named = {
        key: Path(value) for key, value in sampler.parameters.items() if isinstance(value, str) and value
    }
    return {
        f"file of {key}": file_digest(path, "sha256")[:16] for key, path in named.items() if path.is_file()
    }


def _library_of(sampler: Sampler) -> dict[str, str]:
    """Return the version of the library that a rule named after it runs: another one, other samples."""
    try:
        return {f"version of {sampler.name}": metadata.version(sampler.name)}
    except metadata.PackageNotFoundError:
        return {}


def _tuning_calls(sampler: Sampler, spacing: str) -> int:
    """Return the network calls behind what was learned beforehand: a file counts once, whoever names it."""
    named = {spacing, *(value for value in sampler.parameters.values() if isinstance(value, str))}
    return sum(tuning_calls(Path(one)) for one in named if one.endswith(".json"))


def _written(value: Parameter) -> Parameter:
    """Return a parameter as a record holds it: JSON has no infinity."""
    return str(value) if value in (math.inf, -math.inf) else value
