"""Trials repeated with other seeds: mean, standard deviation and number; never their minimum as a result."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from bench.records.record import Record
from bench.report.tables.sheets import Sheet
from bench.report.tables.table import SAME, Measure
from bench.stats.comparison import replicates

COLUMNS = ("model", "sampler", "steps", "metric", "n", "seeds", "mean", "sd", "se_of_mean", "min_of_seeds")


NOTE = "sd between seeds; the mean's error is sd / sqrt(seeds); the minimum falls with the number of seeds"


def replicate_sheet(records: Iterable[Record], metric: str | None = None) -> Sheet:
    """Return one row for every trial that was made with two seeds or more, all else equal.

    A seed counts once: its noise, and so its images, are the same at every batch size.

    Args:
        records: in any order.
        metric: name of the score; each record's first where None.
    """
    found: dict[tuple[object, ...], dict[int, tuple[Record, str]]] = {}
    for record in sorted(records, key=lambda record: (record.trial.batch, record.key)):
        name = metric or next(iter(record.scores), "")
        if name not in record.scores or record.kind == "real":
            continue
        common = tuple(getattr(record.trial, field) for field in SAME if field != "seed")
        measure = Measure.of(record, record.scores[name])
        key = (*common, measure, record.trial.sampler, record.trial.steps, name)
        found.setdefault(key, {}).setdefault(record.trial.seed, (record, name))
    rows = [_row(list(seeds.values())) for seeds in found.values() if len(seeds) > 1]
    rows.sort(key=lambda row: (str(row[0]), str(row[1]), int(str(row[2]))))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    text = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    return Sheet(
        "Replicates over seeds", COLUMNS, text, frame, NOTE, frozenset({"model", "sampler", "metric"})
    )


def _row(members: list[tuple[Record, str]]) -> list[object]:
    record, metric = members[0]
    over = replicates([member.scores[metric].value for member, _ in members])
    trial = record.trial
    named = [trial.model, record.sampler.label, trial.steps, metric, trial.n]
    return [*named, over.n, over.mean, over.sd, over.se, over.min_of_n]
