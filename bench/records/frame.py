"""Records as a pandas data frame."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from bench.device.modes import EAGER
from bench.errors import UsageError
from bench.records.record import DrawingInfo, Record
from bench.records.store import Store


def load_results(folder: str | Path = "results") -> pd.DataFrame:
    """Return a data frame with one row a trial.

    Columns: ``model, weights, kind, sampler, label, parameters``, then one for every parameter of the
    samplers that are there, under its own name (``eta, clip, variance``), then ``spacing, steps,
    distinct_levels, network_calls, evaluations, gradients, upsampler_evaluations, decoder_evaluations, n,
    seed, batch, precision, device, metric, score, score_se, score_debiased, feature_space, reference,
    sampling_seconds, model_seconds, sampler_seconds, decoding_seconds, scoring_seconds, images_per_second,
    peak_bytes, status, message, key, commit, dirty, versions...``;
    besides, every metric under its own name with ``_se`` and ``_debiased``, and with ``_influence_se`` where
    features were kept, and ``stopped``, why a trial that was drawn in rounds got no more samples: rows where
    it is ``continued`` are the first samples of another row's. Where a network was not run as it is there is
    also ``mode``, and where it was not in float32 either, or memory did not hold a batch, ``answers_differ``,
    ``images_differ`` and ``batch_held``; see `bench.records.record.DrawingInfo`. Seconds are of the whole
    trial.

    Args:
        folder: what ``--results`` was given.

    Raises:
        UsageError: if there is no such folder.
    """
    if not Path(folder).is_dir():
        raise UsageError(f"there is no folder {folder}; give the one that --results named")
    records, _ = Store(Path(folder)).read()
    return frame(records)


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return the data frame of some records; see `load_results`."""
    records = list(records)
    named = dict.fromkeys(name for record in records for name in record.sampler.parameters)
    parameters = [name for name in named if name not in _HEAD]  # a parameter hides no column
    modes = any(record.trial.mode != EAGER for record in records)
    drawn = any(record.drawing is not None for record in records)
    return pd.DataFrame(
        [{**_row(record, parameters), **_run_as(record, modes=modes, drawn=drawn)} for record in records]
    )


def _run_as(record: Record, *, modes: bool, drawn: bool) -> dict[str, Any]:
    """Return how the network was run: columns of a frame in which some network was not run as it is."""
    told: dict[str, Any] = {"mode": record.trial.mode} if modes else {}
    if drawn:
        one = record.drawing or DrawingInfo()
        told |= {"answers_differ": one.answers, "images_differ": one.images, "batch_held": one.batch}
    return told


def plain_rows(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as mappings that JSON can hold, with None for what is missing."""
    found = rows.astype(object).where(rows.notna(), None).to_dict(orient="records")
    return [{str(name): value for name, value in row.items()} for row in found]


_APART = ("gradients", "upsampler_evaluations", "decoder_evaluations")
"""Work of other networks than the one that is sampled, counted apart."""

_HEAD = frozenset({"model", "weights", "kind", "sampler", "label", "parameters"})


def _row(record: Record, parameters: Iterable[str]) -> dict[str, Any]:
    trial, sampler, cost, environment = record.trial, record.sampler, record.cost, record.environment
    row: dict[str, Any] = {
        "model": trial.model,
        "weights": record.model.weights,
        "kind": record.kind,
        "sampler": sampler.name or sampler.label,
        "label": sampler.label,
        "parameters": ",".join(f"{k}={v}" for k, v in sampler.parameters.items()),
        **{name: sampler.parameters.get(name) for name in parameters},
        "spacing": trial.spacing,
        "steps": trial.steps,
        "distinct_levels": record.grid.distinct_levels,
        "network_calls": cost.calls if cost else None,
        "tuning_calls": record.grid.tuning_calls,
        "evaluations": cost.evaluations if cost else None,
        **{name: getattr(cost, name, None) for name in _APART},
        **{name: getattr(trial, name) for name in ("n", "seed", "batch", "precision", "device")},
    }
    for place, (name, score) in enumerate(record.scores.items()):
        if place == 0:
            row |= {
                "metric": name,
                "score": score.value,
                "score_se": score.se,
                "score_debiased": score.debiased,
            }
            row |= {"feature_space": score.space, "reference": score.reference}
        row |= {name: score.value, f"{name}_se": score.se, f"{name}_debiased": score.debiased}
        if not math.isnan(score.influence_se):
            row[f"{name}_influence_se"] = score.influence_se
    sampling = cost.sampling_seconds if cost else None
    row |= {name: getattr(cost, name, None) for name in ("sampling_seconds", "model_seconds")}
    row["sampler_seconds"] = cost.sampling_seconds - cost.model_seconds if cost else None
    row |= {name: getattr(cost, name, None) for name in ("decoding_seconds", "scoring_seconds")}
    row["images_per_second"] = trial.n / sampling if sampling else None
    row["peak_bytes"] = cost.peak_bytes if cost else None
    if record.stopping is not None:
        row["stopped"] = record.stopping.outcome
    row |= {"status": record.status, "message": record.message, "key": record.key}
    row |= {
        name: getattr(environment, name) for name in ("device_name", "commit", "dirty", "finished", "command")
    }
    return row | {f"version_{name}": version for name, version in environment.versions.items()}
