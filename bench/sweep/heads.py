"""What a record says of a trial before it has run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.diffusion.grid import Grid
from bench.plugins.cards import LoadedModel
from bench.records.provenance import environment
from bench.records.trial import Trial


def trial_fields(
    trial: Trial, grid: Grid, loaded: LoadedModel, provenance: Mapping[str, Any], device: str
) -> dict[str, Any]:
    """Return what a record of a trial says before it has run, all but its ``sampler``, by field."""
    return {
        "trial": {**trial.to_json(), "key": trial.key},
        "model": {"weights": loaded.weights_hash, "schedule": loaded.model.schedule.name},
        "grid": {"steps": len(grid), "distinct_levels": grid.distinct_levels},
        "provenance": provenance,
        "environment": environment(device),
    }
