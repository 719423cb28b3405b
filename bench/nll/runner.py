"""Bounds as records: the cells that are asked for, and the passes over the images that evaluate them.

A cell is one variance on one number of steps. The cells of a command share their network calls, so they
are evaluated together, in blocks of images; the block is what is kept when a run is stopped.
"""

from __future__ import annotations

from collections.abc import Container, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol, get_args

import numpy as np
import torch

from bench.catalog import own_version
from bench.data.images import from_uint8
from bench.data.sets import content_hash
from bench.device.clock import Clock, peak_memory, reset_peak_memory
from bench.device.precision import PRECISIONS
from bench.diffusion.bound import BoundClip, Chain, ReverseVariance, bound_noise, variational_bounds
from bench.diffusion.conditions import is_conditional
from bench.diffusion.grid import Grid, make_grid
from bench.diffusion.schedule import NoiseSchedule
from bench.diffusion.stages import CascadeModel, Decodes
from bench.errors import NotApplicable, UsageError, users_code
from bench.files.atomic import write_atomically
from bench.files.source import code_hash
from bench.nll.parts import METRICS, BlockTerms, make_terms, mean_score, step_table, terms_path
from bench.nll.request import VARIANCES, BoundRequest, check_request, find_images, named_images
from bench.plugins.lookup import load_model
from bench.records import ledger
from bench.records.blocks import read_blocks, write_block
from bench.records.ledger import Cell, Plan, block_folder
from bench.records.provenance import grid_hash
from bench.records.record import GridInfo, ModelInfo, Record, RowInfo
from bench.records.running import Run
from bench.records.sharing import Share
from bench.records.store import Store
from bench.records.trial import Cost, Failure, Trial
from bench.sweep.meter import Meter, metered

NAME = "nll"
"""What stands in the place of a sampler's name in these records."""

SOURCE = "Ho et al. 2020, arXiv:2006.11239, eqs. 5 and 13; Nichol & Dhariwal 2021, arXiv:2102.09672, eqs. 4-7"


@dataclass(frozen=True)
class BoundCell(Cell):
    """A cell of a table of bounds.

    Attributes:
        chain: the reverse process that is bounded.
    """

    chain: Chain


Terms = dict[str, dict[int, BlockTerms]]
"""What is kept of every block, by the cell's key and the block's first image."""


class BoundObserver(Protocol):
    """Told what happens, to show it."""

    def planned(self, plan: Plan[BoundCell], calls: int) -> None:
        """The plan is made, and so many network calls are to be made."""

    def called(self, t: int) -> None:
        """The network has answered at time step t."""

    def ended(self, record: Record) -> None:
        """A cell has its record."""

    def waiting(self, runs: Sequence[Run]) -> None:
        """Nothing is left to do but what other runs are at; told again until they have done it."""


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
        if isinstance(self.loaded.model, Decodes | CascadeModel):
            raise UsageError(
                f"model {request.model!r} makes images of its x_0 by other networks, which have no"
                " likelihood: the bound takes models of the images themselves"
            )
        if is_conditional(self.loaded.model):
            raise UsageError(
                f"model {request.model!r} is conditional, and there is no likelihood under guidance: the"
                " bound takes unconditional models"
            )
        self.images = find_images(self.loaded, request)
        self.provenance = {
            "weights": self.loaded.weights_hash,
            "code of the model": code_hash(*self.loaded.code),
            "code of the bound": code_hash(variational_bounds, bound_noise, Meter, make_terms, Chain),
            "images": content_hash(self.images)[:16],
        }
        self.cells = self._cells()
        self.blocks = self.cells[0].trial.blocks

    def plan(self) -> Plan[BoundCell]:
        """Return what is to be evaluated."""
        return ledger.plan(self.store, self.cells)

    def run(self, observer: BoundObserver) -> list[Record]:
        """Evaluate what is not there yet and return the record of every cell, by steps and variance.

        Raises:
            BenchError: if results cannot be written.
        """
        self.store.prepare()
        plan = self.plan()
        ledger.drop_answered(self.store, plan)
        able = [cell for cell in plan.pending if self._fits(cell)]
        kept: Terms = {cell.key: self._kept(cell) for cell in able}
        calls = sum(len(_levels(self._missing(able, kept, block))) for block in self.blocks)
        observer.planned(plan, calls)
        unable = Failure.of(NotApplicable("the model predicts no variance"), "setup")
        made = [self._fail(cell, unable) for cell in plan.pending if not self._fits(cell)]
        with self.store.running, closing(self._evaluate(able, kept, observer)) as records:
            for record in records:
                made.append(record)
                observer.ended(record)
        return plan.answers(made)

    def _fits(self, cell: BoundCell) -> bool:
        return cell.chain.variance != "learned" or self.loaded.model.variance != "fixed"

    def _evaluate(self, pending: list[BoundCell], kept: Terms, observer: BoundObserver) -> Generator[Record]:
        """Yield the record of every cell, whichever run in the folder makes it."""
        with Share(self.store, pending) as share:
            left = {cell.key: cell for cell in pending}
            while left:
                idle = True
                for block in self.blocks:
                    cells = self._claimed(share, left.values(), kept, block)
                    for cell, terms in self._pass(cells, block, observer):
                        idle = False
                        if isinstance(terms, Failure):
                            yield self._fail(left.pop(cell.key), terms)
                        else:
                            write_block(block_folder(self.store, cell), block, terms.to_arrays(), terms.cost)
                            kept[cell.key][block.start] = terms
                        share.let_go(cell, block)
                for cell in list(left.values()):
                    kept[cell.key] |= self._kept(cell, kept[cell.key])
                    if (record := self._ended(share, cell, kept[cell.key])) is not None:
                        del left[cell.key]
                        yield record
                if left and idle:
                    observer.waiting(self.store.running.others())
                    share.wait()

    def _claimed(
        self, share: Share, cells: Iterable[BoundCell], kept: Terms, block: range
    ) -> list[BoundCell]:
        """Claim a block of images, and return the cells that are to be evaluated on it now."""
        mine = []
        for cell in cells:
            known = kept[cell.key]
            if block.start in known:
                continue
            if not share.take(cell, block):
                break  # cells share network calls: the run that is at this one takes the others too
            known |= self._kept(cell, known)  # now that nobody else is at it: it may be there
            if block.start in known or share.ended(cell) is not None:
                share.let_go(cell, block)
            else:
                mine.append(cell)
        return mine

    def _ended(self, share: Share, cell: BoundCell, terms: dict[int, BlockTerms]) -> Record | None:
        """Return the record of a cell that is whole, or that another run has ended."""
        found = share.ended(cell)
        if found is None and len(terms) == len(self.blocks):
            with share.ending(cell) as mine:
                if mine:
                    found = share.ended(cell) or self._finish(cell, [terms[b.start] for b in self.blocks])
        return found

    def _pass(
        self, cells: list[BoundCell], block: range, observer: BoundObserver
    ) -> list[tuple[BoundCell, BlockTerms | Failure]]:
        """Evaluate some cells on one block of images; a model that raises costs them all."""
        if not cells:
            return []
        stage, request, device = "setup", self.request, self.device

        def after_level(t: int) -> None:
            nonlocal stage
            stage = f"after t={t}"
            observer.called(t)

        try:
            with torch.inference_mode():
                x0 = from_uint8(self.images[block.start : block.stop].to(device), torch.float64)
                noise = bound_noise(request.seed, block, self.loaded.model.shape, device)
                model = metered(self.loaded.model, Clock(device), PRECISIONS[request.precision])
                reset_peak_memory(device)
                whole = Clock(device)
                with whole.running():
                    chains = [cell.chain for cell in cells]
                    bounds = variational_bounds(model, x0, chains, noise, request.clip, after_level)
        except users_code() as error:
            failure = Failure.of(error, stage)
            return [(cell, failure) for cell in cells]
        # Network calls are shared: a cell's cost is that of its own calls, as if it were alone.
        a_call = 1 / model.calls
        unit = Cost(0, whole.seconds * a_call, model.clock.seconds * a_call, 0, peak_memory(device))
        return [
            (cell, make_terms(terms, unit, len(cell.chain.steps)))
            for cell, terms in zip(cells, bounds, strict=True)
        ]

    def _finish(self, cell: BoundCell, blocks: list[BlockTerms]) -> Record:
        """Write the record of a whole cell, and the terms of its steps beside it."""
        images = np.concatenate([block.images for block in blocks], axis=1)
        values = [images.sum(0), *images]
        sums = np.sum([block.steps for block in blocks], axis=0)
        cost = sum((block.cost for block in blocks), Cost())
        reference = self.provenance["images"]
        scores = {m: mean_score(m, v, reference) for m, v in zip(METRICS, values, strict=True)}
        record = replace(cell.record(), scores=scores, cost=cost)
        table = step_table(cell.chain, scores, sums, cell.trial.n)
        write_atomically(terms_path(self.store, record), table.to_csv(index=False).encode())
        self.store.write(record)
        return record

    def _fail(self, cell: BoundCell, failure: Failure) -> Record:
        record = cell.record(failure)
        self.store.write(record)
        return record

    def _cells(self) -> list[BoundCell]:
        request, model = self.request, self.loaded.model
        schedule = model.schedule
        if not isinstance(schedule, NoiseSchedule):
            raise UsageError(
                f"the bound is over the time steps of a discrete schedule; {schedule.name} has none"
            )
        steps = request.steps or (schedule.T,)
        possible = VARIANCES if model.variance != "fixed" else VARIANCES[:2]
        walks = [make_grid(schedule, count, request.spacing).rounded() for count in steps]
        return [self._cell(walk, variance) for walk in walks for variance in request.variances or possible]

    def _cell(self, walk: Grid, variance: ReverseVariance) -> BoundCell:
        clip: BoundClip = self.request.clip
        return BoundCell(
            kind="bound",
            trial=self._trial(variance, walk.requested),
            row=RowInfo(
                name=NAME,
                label=f"{NAME} {variance}" + ("" if clip == "x0" else f" clip={clip}"),
                parameters={"variance": variance, "clip": clip},
                place=(VARIANCES.index(variance), get_args(BoundClip).index(clip)),
                source=SOURCE,
                plugin="sampler-bench",
                version=own_version(),
            ),
            model=ModelInfo(self.loaded.weights_hash, self.loaded.model.schedule.name),
            grid=GridInfo(len(walk), walk.distinct_levels),
            provenance={**self.provenance, "time steps": grid_hash(walk)},
            device=self.request.device,
            chain=Chain.of(walk, variance),
        )

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

    def _missing(self, cells: list[BoundCell], kept: Terms, block: range) -> list[BoundCell]:
        return [cell for cell in cells if block.start not in kept[cell.key]]

    def _kept(self, cell: BoundCell, known: Container[int] = ()) -> dict[int, BlockTerms]:
        """Return the terms that are kept, but those of blocks that are known, by the block's first image."""
        found = {}
        folder = block_folder(self.store, cell)
        for block, arrays, cost in read_blocks(folder, lambda block: block.start not in known):
            if block in self.blocks and arrays.keys() == {"images", "steps"}:
                found[block.start] = BlockTerms(**arrays, cost=cost)
        return found


def _levels(cells: Sequence[BoundCell]) -> set[int]:
    return {int(step.t) for cell in cells for step in cell.chain.steps}
