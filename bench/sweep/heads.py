"""What a record says of a trial before it has run."""

from __future__ import annotations

from collections.abc import Mapping

from bench.diffusion.grid import Grid
from bench.plugins.cards import LoadedModel
from bench.records.provenance import environment
from bench.records.record import GridInfo, Kind, ModelInfo, Record, RowInfo
from bench.records.trial import Trial


def head_of(
    kind: Kind,
    trial: Trial,
    row: RowInfo,
    grid: Grid,
    loaded: LoadedModel,
    provenance: Mapping[str, str],
    device: str,
) -> Record:
    """Return the record of a trial without scores, to be completed once it has run.

    Args:
        kind: what is measured.
        trial: the cell.
        row: what stands in its row.
        grid: the steps it takes.
        loaded: the model.
        provenance: what would make the record stale if it changed.
        device: torch device it runs on.
    """
    return Record(
        kind=kind,
        trial=trial,
        status="done",
        sampler=row,
        model=ModelInfo(loaded.weights_hash, loaded.model.schedule.name),
        grid=GridInfo(len(grid), grid.distinct_levels),
        provenance=provenance,
        environment=environment(device),
    )
