"""Tell where the error is: in the solver, in the network, or in too few samples; and in which of the steps.

Every sampler's score is set beside that of its own fine limit, drawn from the same noise, and beside real
images'. The limit of a sampler without noise is the probability flow, solved by many steps; of one with noise
it is the sampler itself with many steps, whose paths differ, so that distributions alone are compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from bench.commands.options import (
    load_plugins,
    parse_devices,
    parse_metrics,
    parse_samplers,
    parse_spacing,
    parse_steps,
    print_json,
)
from bench.commands.progress import Shown
from bench.commands.run import swept
from bench.diffusion.conditions import bound
from bench.diffusion.grid import grid_for
from bench.diffusion.local import local_errors
from bench.diffusion.noise import TrajectoryNoise
from bench.diffusion.orders import draws
from bench.diffusion.sampling import Sampler, get_sampler
from bench.diffusion.schedule import NoiseSchedule
from bench.diffusion.stages import CascadeModel
from bench.drawing.style import LIGHT
from bench.errors import NotApplicable, UsageError
from bench.files.atomic import write_text
from bench.metrics.frechet_score import FrechetMetric
from bench.metrics.groups import GROUPS
from bench.metrics.pairs import Gap, gap
from bench.plugins.cards import LoadedModel
from bench.plugins.loading import registry
from bench.plugins.lookup import get_card
from bench.records.record import Record
from bench.records.store import Store, file_slug
from bench.report.tables.decomposition import (
    DecomposedRow,
    SteppedRow,
    parts_sheet,
    steps_frame,
    steps_sheet,
)
from bench.report.tables.sheets import Sheet, comma_separated, plain
from bench.stats.decomposition import decompose
from bench.sweep.request import Sweep
from bench.sweep.runner import Runner

IMAGES = 64
"""Images that the errors of steps are measured on."""

GRID = "logsnr"
"""Time grid of the exact solution."""


class Limit(NamedTuple):
    """The fine limit of a sampler, drawn twice.

    Attributes:
        half: the record with half as many steps.
        whole: the limit.
    """

    half: Record
    whole: Record

    @property
    def label(self) -> str:
        """What it is, in words."""
        return f"{self.whole.sampler.label} S={self.whole.trial.steps}"


def execute(options: argparse.Namespace) -> int:
    """Draw what is missing, print the parts and the steps, and write them as CSV and as plots."""
    load_plugins(options.plugin)
    study = _study(options)
    records = study.draw(study.sweep)
    sampled = [one for one in records if one.kind == "samples"]
    real = next((one for one in records if one.kind == "real"), None)
    done = [one for one in sampled if one.status == "done"]
    limits = study.limits({one.trial.sampler for one in done})
    rows = [study.row(one, limits[one.trial.sampler], real) for one in done if one.trial.sampler in limits]
    stepped = list(study.stepped({one.trial.sampler for one in done}))
    notes = [*study.said_of_limits(limits), *_said_of_real(real)]
    sheets = [parts_sheet(study.title, rows, notes), *study.step_sheets(stepped)] if rows else []
    if options.json:
        told = [line for row in stepped for line in row.to_json()]
        print_json({**study.facts, "notes": notes, "rows": [row.to_json() for row in rows], "steps": told})
    for sheet in sheets if not options.json else ():
        print(plain(sheet))
    for path in study.write(sheets[:1], stepped):
        print(f"  {path}", file=sys.stderr if options.json else sys.stdout)
    for one in (one for one in sampled if one.status != "done"):
        print(f"{one.status}: {one.title}: {one.message}", file=sys.stderr)
    return 1 if any(one.status == "failed" for one in sampled) else 0


@dataclass(frozen=True)
class Study:
    """What is asked for, with its model loaded.

    Attributes:
        sweep: the samplers whose scores are split.
        loaded: the model.
        store: where the records are.
        solver: the rule that solves the flow exactly, with many steps.
        limit: how many.
        quiet: whether no progress is shown.
    """

    sweep: Sweep
    loaded: LoadedModel
    store: Store
    solver: Sampler
    limit: int
    quiet: bool

    @property
    def metric(self) -> str:
        """The name of the score."""
        return self.sweep.metrics[0]

    @property
    def facts(self) -> Mapping[str, object]:
        """What all rows have in common."""
        sweep = self.sweep
        return {
            "model": sweep.model,
            "metric": self.metric,
            "n": sweep.n,
            "spacing": sweep.spacings[0],
            "seed": sweep.seed,
            "precision": sweep.precision,
        }

    @property
    def title(self) -> str:
        """The title of the parts."""
        sweep = self.sweep
        return (
            f"{sweep.model}: where the error of {self.metric} is, n={sweep.n:,}, spacing {sweep.spacings[0]},"
            f" seed {sweep.seed}, {sweep.precision}"
        )

    @cached_property
    def noisy(self) -> frozenset[str]:
        """The samplers that draw noise on the way."""
        grid = grid_for(self.loaded.model, self.sweep.steps[0], self.sweep.spacings[0])
        found = set()
        for sampler in self.sweep.samplers:
            try:
                noisy = bool(draws(sampler, grid))
            except NotApplicable:  # it needs what the exact model lacks, such as a learned reverse variance
                noisy = True
            found |= {sampler.spec} if noisy else set()
        return frozenset(found)

    def draw(self, sweep: Sweep) -> list[Record]:
        """Return the records of a sweep, drawn where they are missing."""
        return swept(sweep, self.store, Shown(quiet=self.quiet))

    def limits(self, samplers: Iterable[str]) -> dict[str, Limit]:
        """Return the fine limits of some samplers; none of one whose limit could not be drawn."""
        schedule, wanted = self.loaded.model.schedule, set(samplers)
        most = min(self.limit, schedule.T) if isinstance(schedule, NoiseSchedule) else self.limit
        noisy = [one for one in self.sweep.samplers if one.spec in wanted & self.noisy]
        found = self._fine(noisy, most, self.sweep.spacings[0]) if noisy else {}
        if calm := wanted - self.noisy:
            flow = self._fine([self.solver], most, GRID)
            found |= {one: limit for limit in flow.values() for one in calm}
        return found

    def _fine(self, samplers: Sequence[Sampler], most: int, spacing: str) -> dict[str, Limit]:
        steps = (most // 2, most)
        fine = replace(self.sweep, samplers=tuple(samplers), steps=steps, spacings=(spacing,))
        records = {(one.trial.sampler, one.trial.steps): one for one in self.draw(fine) if one.scores}
        pairs = {one.spec: [records.get((one.spec, count)) for count in steps] for one in samplers}
        return {one: Limit(half, whole) for one, (half, whole) in pairs.items() if half and whole}

    def row(self, record: Record, limit: Limit, real: Record | None) -> DecomposedRow:
        """Return the parts of a trial's score."""
        score, fine = record.scores[self.metric], limit.whole.scores[self.metric]
        floor = None if real is None else real.scores.get(self.metric)
        apart = self._gap(record, limit.whole)
        return DecomposedRow(
            sampler=record.sampler.label,
            steps=record.trial.steps,
            calls=record.cost.calls if record.cost else 0.0,
            score=score,
            limit=limit.label,
            parts=decompose(score, fine, floor),
            paths=None if record.trial.sampler in self.noisy else apart.paths,
            laws=apart.laws,
        )

    def _gap(self, one: Record, other: Record) -> Gap:
        space = registry().metrics.get(self.metric).space
        return gap(self.store.read_features(one, space), self.store.read_features(other, space))

    def said_of_limits(self, limits: Mapping[str, Limit]) -> Iterator[str]:
        """Yield how far each limit moves when its steps are doubled: what is left of its own error."""
        for limit in {limit.whole.key: limit for limit in limits.values()}.values():
            apart = self._gap(limit.half, limit.whole)
            noisy = limit.whole.trial.sampler in self.noisy
            found, value = ("distributions", apart.laws.debiased) if noisy else ("images", apart.paths.value)
            error = apart.laws.se if noisy else apart.paths.se
            yield (
                f"limit: {limit.label} on {limit.whole.trial.spacing}; from half as many steps to these its"
                f" {found} move by {value:.2g} ± {error:.1g}"
            )

    def stepped(self, samplers: Iterable[str]) -> Iterator[SteppedRow]:
        """Yield the errors of the steps of every sampler that draws no noise."""
        model = self.loaded.model
        first = model.model if isinstance(model, CascadeModel) else model
        indices = range(min(IMAGES, self.sweep.n))
        mine = bound(first, indices, self.sweep.seed)
        x = TrajectoryNoise(self.sweep.seed, indices, first.shape, self.sweep.devices[0]).initial()
        calm = [one for one in self.sweep.samplers if one.spec not in self.noisy and one.spec in samplers]
        for steps in self.sweep.steps:
            grid = grid_for(first, steps, self.sweep.spacings[0])
            for sampler in calm:
                errors = local_errors(mine, sampler, grid, x, self.solver)
                yield SteppedRow(sampler.label, steps, errors)

    def step_sheets(self, rows: Iterable[SteppedRow]) -> list[Sheet]:
        """Return the errors of steps, a sheet for each S."""
        return [steps_sheet(self._steps_title(steps), alike) for steps, alike in _by_steps(rows).items()]

    def _steps_title(self, steps: int) -> str:
        return f"{self.sweep.model}: the error of each step, S={steps}, spacing {self.sweep.spacings[0]}"

    def write(self, sheets: Sequence[Sheet], stepped: Sequence[SteppedRow]) -> Iterator[Path]:
        """Write the unrounded numbers as CSV and a plot for each S; yield the paths."""
        slug = file_slug(f"decompose-{self.sweep.model}-{self.metric}")
        for sheet in sheets:
            yield self._csv(f"{slug}.csv", sheet)
        if not stepped:
            return
        from bench.drawing.figures import save  # matplotlib takes a second that bad usage need not wait for
        from bench.report.plots.local import local_error_plot

        path = self.store.folder / f"{slug}-steps.csv"
        write_text(path, steps_frame(stepped).to_csv(index=False, lineterminator="\n"))
        yield path
        for steps, alike in _by_steps(stepped).items():
            figure = local_error_plot(self._steps_title(steps), alike, LIGHT)
            yield save(figure, self.store.folder / f"{slug}-S{steps}.png")

    def _csv(self, name: str, sheet: Sheet) -> Path:
        path = self.store.folder / name
        write_text(path, comma_separated(sheet))
        return path


def _study(options: argparse.Namespace) -> Study:
    """Return what was asked for.

    Raises:
        UsageError: for what cannot be; the sentence says what.
    """
    if options.limit < 4:
        raise UsageError(f"--limit must be at least 4 steps, got {options.limit}")
    names = parse_metrics(options.metrics) if options.metrics else get_card(options.model).metrics[:1]
    if len(names) > 1:
        raise UsageError(f"one score is split at a time: give --metrics one name, got {options.metrics}")
    for name in names:
        _frechet(name)  # before the model is loaded, which takes a while
    (device, *_) = parse_devices(options.device)
    sweep = Sweep(
        model=options.model,
        samplers=parse_samplers(options.samplers),
        steps=parse_steps(options.steps),
        n=options.n,
        seed=options.seed,
        spacings=(parse_spacing(options.spacing),),
        batch=options.batch,
        precision=options.precision,
        devices=(device,),
        metrics=names,
        reference=options.reference,
        held_out=options.held_out,
        plugins=tuple(options.plugin),
        keep_features=True,
    )
    store = Store(options.results)
    runner = Runner(sweep, store)
    metric = _frechet(runner.metrics[0])  # of a model that names none, the one for images of its shape
    sweep = replace(runner.sweep, metrics=(metric.name,))
    dim = runner.worker.spaces[metric.space].dim
    if sweep.n - -(-sweep.n // GROUPS) <= dim:
        raise UsageError(
            f"{metric.name} has {dim:,} features, and of {sweep.n:,} images no bias can be corrected: give"
            f" --n {-(-(dim + 2) * GROUPS // (GROUPS - 1))} or more, or another score with --metrics"
        )
    solver = get_sampler(options.solver)
    study = Study(sweep, runner.loaded, store, solver, options.limit, options.json)
    if replace(study, sweep=replace(sweep, samplers=(solver,))).noisy:
        raise UsageError(f"--solver {solver.label} draws noise, and the flow has none; give dpmpp-3m or heun")
    return study


def _frechet(name: str) -> FrechetMetric:
    """Return the score of a name.

    Raises:
        UsageError: if it is none whose parts add up.
    """
    metric = registry().metrics.get(name)
    if not isinstance(metric, FrechetMetric):
        raise UsageError(f"{name} is no Frechet distance, whose parts alone add up; give --metrics fd_...")
    return metric


def _said_of_real(real: Record | None) -> Iterator[str]:
    if real is None:
        yield (
            "no real images to compare with (--held-out IMAGES names some): the network's part holds their"
            " distance from the reference too"
        )


def _by_steps(rows: Iterable[SteppedRow]) -> dict[int, list[SteppedRow]]:
    found: dict[int, list[SteppedRow]] = {}
    for row in rows:
        found.setdefault(row.steps, []).append(row)
    return found
