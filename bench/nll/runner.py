"""Bounds as records: what is to be evaluated, what is there already, and the passes over the images between.

A trial is one variance on one number of steps. The trials of a command share their network calls, so they
are evaluated together, in blocks of images; the block is what is kept when a run is stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from bench.data.sets import content_hash
from bench.device.clock import Clock, peak_memory, reset_peak_memory
from bench.device.precision import PRECISIONS
from bench.diffusion.bound import BoundClip, Chain, ReverseVariance, bound_noise, variational_bounds
from bench.diffusion.grid import Grid, make_grid
from bench.errors import NotApplicable, UsageError
from bench.files.atomic import write_atomically
from bench.files.source import code_hash
from bench.nll.parts import METRICS, Part, make_part, mean_score, step_table, terms_path
from bench.nll.request import VARIANCES, BoundRequest, check_request, find_images, named_images
from bench.plugins.loading import own_version
from bench.plugins.lookup import load_model
from bench.records.provenance import grid_hash, short_hash
from bench.records.record import Record, RowInfo, Stale, stale_fields
from bench.records.store import Store
from bench.records.trial import Cost, Failure, Trial
from bench.sweep.heads import head_of
from bench.sweep.meter import Meter

NAME = "nll"
"""``sampler`` of these records: none, but the place in the table that a sampler has."""


SOURCE = "Ho et al. 2020, arXiv:2006.11239, eqs. 5 and 13; Nichol & Dhariwal 2021, arXiv:2102.09672, eqs. 4-7"


@dataclass(frozen=True)
class BoundTrial:
    """One cell: a trial with its reverse process."""

    trial: Trial
    grid: Grid
    chain: Chain
    clip: BoundClip

    @property
    def label(self) -> str:
        """Name of its row."""
        return f"{NAME} {self.chain.variance}" + ("" if self.clip == "x0" else f" clip={self.clip}")


class BoundObserver(Protocol):
    """Told what happens, to show it."""

    def planned(self, reused: int, stale: Sequence[Stale], passes: int) -> None:
        """So many records are there, these are out of date, and so many network calls are to be made."""

    def called(self, t: int) -> None:
        """The network has answered at time step t."""

    def ended(self, record: Record) -> None:
        """A trial has its record."""


class BoundRunner:
    """A request with its model and images loaded.

    Args:
        request: what was asked for.
        store: where records are.

    Raises:
        UsageError: if the request asks for something that cannot be.
        BenchError: if the model cannot be loaded.
    """

    def __init__(self, request: BoundRequest, store: Store) -> None:
        check_request(request)
        self.request, self.store = request, store
        self.device = torch.device(request.device)
        self.loaded = load_model(request.model, self.device)
        self.data, self.images = find_images(self.loaded, request)
        self.provenance = {
            "weights": self.loaded.weights_hash,
            "code of the model": code_hash(self.loaded.model),
            "code of the bound": code_hash(variational_bounds, bound_noise, Meter, make_part, Chain),
            "images": content_hash(self.images)[:16],
        }
        self.trials = self._trials()

    def run(self, observer: BoundObserver) -> list[Record]:
        """Evaluate what is not there yet and return the record of every trial, by steps and variance.

        Raises:
            BenchError: if results cannot be written.
        """
        self.store.prepare()
        known = {record.key: record for record in self.store.read()[0]}
        made: dict[str, Record] = {}
        pending, stale = [], []
        for cell in self.trials:
            record = known.get(cell.trial.key)
            if record is not None and record.status != "failed":
                changed = stale_fields(record, self._provenance(cell))
                if not changed:
                    made[record.key] = record
                    continue
                stale.append(Stale(record, changed))
            pending.append(cell)
        able = [cell for cell in pending if self._fits(cell)]
        parts = {cell.trial.key: self._kept(cell) for cell in able}
        passes = [self._missing(able, parts, block) for block in self._blocks]
        observer.planned(len(made), stale, sum(len(_levels(cells)) for cells in passes))
        for cell in pending:
            if not self._fits(cell):
                reason = NotApplicable("the model predicts no variance")
                made[cell.trial.key] = self._fail(cell, Failure.of(reason, "setup"))
        for record in self._evaluate(able, parts, observer):
            made[record.key] = record
            observer.ended(record)
        return [made[cell.trial.key] for cell in self.trials]

    def _provenance(self, cell: BoundTrial) -> dict[str, Any]:
        return {**self.provenance, "time steps": grid_hash(cell.grid)}

    def _fits(self, cell: BoundTrial) -> bool:
        return cell.chain.variance != "learned" or self.loaded.model.variance != "fixed"

    def _evaluate(
        self, pending: list[BoundTrial], parts: dict[str, dict[int, Part]], observer: BoundObserver
    ) -> Iterator[Record]:
        failed: set[str] = set()
        for block in self._blocks:
            cells = self._missing([c for c in pending if c.trial.key not in failed], parts, block)
            for cell, part in self._pass(cells, block, observer):
                if isinstance(part, Failure):
                    failed.add(cell.trial.key)
                    yield self._fail(cell, part)
                else:
                    part.write(self._block_path(cell, block))
                    parts[cell.trial.key][block.start] = part
        for cell in pending:
            if cell.trial.key not in failed:
                yield self._finish(cell, [parts[cell.trial.key][block.start] for block in self._blocks])

    def _pass(
        self, cells: list[BoundTrial], block: range, observer: BoundObserver
    ) -> list[tuple[BoundTrial, Part | Failure]]:
        """Evaluate some trials on one block of images; a model that raises costs them all."""
        if not cells:
            return []
        stage, request, device = "setup", self.request, self.device

        def after_level(t: int) -> None:
            nonlocal stage
            stage = f"after t={t}"
            observer.called(t)

        try:
            with torch.inference_mode():
                x0 = self.images[block.start : block.stop].to(device).double() / 127.5 - 1
                noise = bound_noise(request.seed, block, self.loaded.model.shape, device)
                model = Meter(self.loaded.model, Clock(device), PRECISIONS[request.precision])
                reset_peak_memory(device)
                whole = Clock(device)
                with whole.running():
                    chains = [cell.chain for cell in cells]
                    bounds = variational_bounds(model, x0, chains, noise, request.clip, after_level)
        except Exception as error:
            failure = Failure.of(error, stage)
            return [(cell, failure) for cell in cells]
        # Network calls are shared: a trial's cost is that of its own calls, as if it were alone.
        a_call = 1 / model.calls
        unit = Cost(0, whole.seconds * a_call, model.clock.seconds * a_call, 0, peak_memory(device))
        return [
            (c, make_part(terms, unit, len(c.chain.steps))) for c, terms in zip(cells, bounds, strict=True)
        ]

    def _finish(self, cell: BoundTrial, parts: list[Part]) -> Record:
        """Write the record of a whole trial, and the terms of its steps beside it."""
        images = np.concatenate([part.images for part in parts], axis=1)
        values = [images.sum(0), *images]
        sums = np.sum([part.steps for part in parts], axis=0)
        cost = sum((part.cost for part in parts), Cost())
        reference = self.provenance["images"]
        scores = {m: mean_score(m, v, reference) for m, v in zip(METRICS, values, strict=True)}
        record = replace(self._head(cell), scores=scores, cost=cost)
        table = step_table(cell.chain, scores, sums, cell.trial.n)
        write_atomically(terms_path(self.store, record), table.to_csv(index=False).encode())
        self.store.write(record)
        return record

    def _fail(self, cell: BoundTrial, failure: Failure) -> Record:
        record = self._head(cell).failed(failure)
        self.store.write(record)
        return record

    def _head(self, cell: BoundTrial) -> Record:
        parameters = {"variance": cell.chain.variance, "clip": cell.clip}
        row = RowInfo(NAME, cell.label, parameters, None, SOURCE, "sampler-bench", own_version())
        device = self.request.device
        return head_of("bound", cell.trial, row, cell.grid, self.loaded, self._provenance(cell), device)

    def _trials(self) -> list[BoundTrial]:
        request, model = self.request, self.loaded.model
        steps = request.steps or (model.schedule.T,)
        possible = VARIANCES if model.variance != "fixed" else VARIANCES[:2]
        cells = []
        for count in steps:
            try:
                grid = make_grid(model.schedule, count, request.spacing)
            except UsageError:
                raise
            except ValueError as error:
                raise UsageError(str(error)) from None
            for variance in request.variances or possible:
                chain = Chain.of(grid, variance)
                cells.append(BoundTrial(self._trial(variance, count), grid, chain, request.clip))
        return cells

    def _trial(self, variance: ReverseVariance, steps: int) -> Trial:
        request, n = self.request, len(self.images)
        return Trial(
            model=request.model,
            sampler=f"{NAME}:variance={variance},clip={request.clip}",
            spacing=request.spacing,
            steps=steps,
            n=n,
            seed=request.seed,
            batch=min(request.batch or self.loaded.card.batch, n),
            precision=request.precision,
            device=self.device.type,
            metrics=METRICS,
            reference=named_images(self.loaded, request),
        )

    @property
    def _blocks(self) -> list[range]:
        return self.trials[0].trial.blocks

    def _missing(
        self, cells: list[BoundTrial], parts: dict[str, dict[int, Part]], block: range
    ) -> list[BoundTrial]:
        return [cell for cell in cells if block.start not in parts[cell.trial.key]]

    def _block_path(self, cell: BoundTrial, block: range) -> Path:
        folder = self.store.blocks / f"{cell.trial.key}-{short_hash(self._provenance(cell))}"
        return folder / f"{block.start:08d}-{block.stop:08d}.npz"

    def _kept(self, cell: BoundTrial) -> dict[int, Part]:
        found = {block.start: Part.read(self._block_path(cell, block)) for block in self._blocks}
        return {start: part for start, part in found.items() if part is not None}


def _levels(cells: Sequence[BoundTrial]) -> set[int]:
    return {step.t for cell in cells for step in cell.chain.steps}
