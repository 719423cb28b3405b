"""Records made up for tests of tables and reports: any score at any place, with a jackknife to match."""

import math
from dataclasses import replace

import numpy as np
import torch

from bench.diffusion.sampling import get_sampler
from bench.records.record import FLOOR, Environment, GridInfo, ModelInfo, Record, RowInfo
from bench.records.store import Store
from bench.records.trial import Cost, Failure, Trial
from bench.report.tables.table import tables_of
from bench.stats.resampling import jackknife
from bench.stats.score import Score

GROUPS = 20


def score(value, se=0.01, metric="fid", n=50_000, seed=0, debiased=None, **fields):
    """A score with exactly this value, this bias-corrected value (the same by default) and this error."""
    left = np.random.default_rng(seed).normal(size=GROUPS)
    left -= left.mean()
    left *= se / math.sqrt((GROUPS - 1) / GROUPS * float(np.sum(left**2))) if se else 0.0
    found = jackknife(value, (value + left).tolist())
    measured_with = {"space": "space", "reference": "reference", **fields}
    return Score(
        metric=metric, value=value, debiased=found.debiased if debiased is None else debiased, se=found.se,
        leave_one_out=found.leave_one_out, n=n, **measured_with,
    )  # fmt: skip


def record(
    sampler="ddim:eta=0", steps=10, value=1.0, *, se=0.01, metric="fid", model="ema_cifar10", n=50_000,
    spacing="quadratic", precision="float32", status="done", T=1000, levels=None, seed=0, message="",
    weights="00", drawn=(), provenance=(), **fields,
):  # fmt: skip
    """A record of one trial: ``drawn`` are other fields of it; ``fields`` go into its score."""
    chosen = get_sampler(get_sampler(sampler).spec) if sampler != FLOOR else None
    spec = chosen.spec if chosen else FLOOR
    trial = Trial(model, spec, spacing, steps, n, 0, 100, precision, "cpu", (metric,))
    trial = replace(trial, **dict(drawn))
    named = RowInfo(label=FLOOR)
    if chosen:
        parameters = dict(chosen.parameters)
        named = RowInfo(
            chosen.name, chosen.label, parameters, chosen.place, 1, chosen.source, "sampler-bench", "0.1.0"
        )
    done = status == "done"
    return Record(
        kind="samples" if chosen else "real",
        trial=trial,
        status=status,
        message=message,
        sampler=named,
        model=ModelInfo(weights, f"linear(T={T}, start=0.0001, end=0.02)"),
        grid=GridInfo(steps, steps if levels is None else levels),
        provenance={"weights": weights, **dict(provenance)},
        scores={metric: score(value, se, metric, n, seed, **fields)} if done else {},
        cost=Cost(steps, 0.02 * steps, 0.015 * steps, 0.1, 2**20) if done else None,
        environment=Environment(
            versions={"python": "3.12", "torch": "2.9"}, device_name="a processor", commit="c0ffee",
            dirty=False, command=f"python -m bench run --samplers {spec}",
            finished="2026-01-01T00:00:00+00:00",
        ),
        failure=None if done else Failure(status, "step 3", message, "Traceback: it broke"),
    )  # fmt: skip


def table(records):
    """The one table that the records make."""
    (made,) = tables_of(records)
    return made


def results(folder, **fields):
    """A results folder with a failed trial, a skipped one, real images and pictures; return its store."""
    store = Store(folder)
    store.prepare()
    generator = torch.Generator().manual_seed(0)

    def pictures(count=16):
        return torch.randint(0, 256, (count, 1, 12, 12), generator=generator, dtype=torch.uint8)

    values = {"ddim:eta=0": (2.0, 1.0, 0.6), "ddim:eta=1": (4.0, 2.0, 0.7), "sigma-hat": (9.0, 3.0, 0.5)}
    common = {"model": "digits", "metric": "fd_digits", "n": 1000, "spacing": "uniform", **fields}
    for row, (spec, scores) in enumerate(values.items()):
        for column, (steps, value) in enumerate(zip((10, 50, 1000), scores, strict=True)):
            made = record(spec, steps, value, seed=10 * row + column, **common)
            store.write(made, pictures(), pictures(11))
    store.write(record("ddim:eta=0.5", 10, status="failed", message="it broke", **common))
    store.write(record("ddpm:variance=learned", 10, status="skipped", message="no variance", **common))
    store.write(record(FLOOR, 0, 0.4, **common), pictures(), pictures(11))
    return store
