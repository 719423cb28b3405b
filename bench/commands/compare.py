"""Compare two trials, paired through their common noise, or all of one number of steps with their best.

`compare ddim:eta=0@10 ddim:eta=1@10` gives the difference, its standard error and a verdict at 95%;
`compare --column 10` gives the rank of a column with ties, corrected for their number by Holm's method: a
column for each table that `table` prints. `compare --calls 20` ranks what each row gets for at most 20
network calls. Where both trials kept their features (`run --keep-features`) a pair also gets the error by
influence values.
"""

from __future__ import annotations

import argparse
import html
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import pandas as pd

from bench.commands.folders import compare_folders, failed_rows, rows_of, sheet_of
from bench.commands.options import (
    load_plugins,
    print_json,
    read_records,
    refuse_unknown_metric,
)
from bench.commands.selection import say_failures
from bench.commands.show import matching
from bench.errors import BenchError, UsageError
from bench.records.record import Record
from bench.records.store import Store
from bench.records.trial import Trial
from bench.report.tables.sheets import plain
from bench.report.tables.table import Cell, Table, calls, is_beaten, shared, tables_of
from bench.stats.comparison import Comparison, compare, estimate, holm, not_judged
from bench.stats.resampling import influence_se
from bench.stats.score import Score

HEAD = f"{'':<34} {'score':>12} {'corrected':>12}  {'difference':>24} {'z':>7} {'p':>9}  verdict"

NOT_JUDGED = "not judged"
"""The verdict on scores that allow none."""


@dataclass(frozen=True, repr=False)
class Compared:
    """Trials set side by side: text where it is printed, HTML in a notebook.

    Attributes:
        rows: one a trial, as JSON has them.
        notes: what a reader of the rows must know, a line each.
        title: the title of the table whose column it is; empty for a pair.
    """

    rows: list[dict[str, object]]
    notes: list[str]
    title: str = ""

    @property
    def frame(self) -> pd.DataFrame:
        """One row a trial, with unrounded numbers."""
        return pd.DataFrame(self.rows)

    def text(self, *, titled: bool = False) -> str:
        """Return it as lines of text, under the title of its table where that is wanted."""
        lines = [self.title] if titled else []
        return "\n".join([*lines, HEAD, *map(_line, self.rows), *self.notes])

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.text())}</pre>"


def execute(options: argparse.Namespace) -> int:
    """Print the comparison."""
    if any(Path(trial).is_dir() for trial in options.trials):
        return _folders(options)
    whole_column = options.column is not None or options.calls is not None
    if len(options.trials) != (0 if whole_column else 2):
        raise UsageError("give two trials, as in ddim:eta=0@10 ddim:eta=1@10, or --column S, or --calls N")
    load_plugins(options.plugin)
    records, whole = read_records(options.results, options.model)
    if whole_column:
        refuse_unknown_metric(records, options.metric)
        compared = columns_of(records, options.column, options.calls, options.metric, Store(options.results))
    else:
        compared = [pair(records, options.trials, options.metric, Store(options.results))]
    rows = [row for one in compared for row in one.rows]
    failed = failed_rows(rows, options.fail_if)
    if options.json:
        print_json(rows)
    else:
        print("\n\n".join(one.text(titled=len(compared) > 1) for one in compared), flush=True)
    return max(say_failures(failed), 0 if whole else 1)


def _folders(options: argparse.Namespace) -> int:
    """Print two results folders trial by trial."""
    if options.column is not None or options.calls is not None:
        raise UsageError("two folders are compared trial by trial; leave --column and --calls out")
    if len(options.trials) != 2 or not all(Path(trial).is_dir() for trial in options.trials):
        others = [trial for trial in options.trials if not Path(trial).is_dir()]
        what = f"{others[0]} is no folder" if others else f"got {len(options.trials)}"
        raise UsageError(f"compare takes two trials or two results folders; {what}")
    first, second = map(Path, options.trials)
    (before, one), (after, other) = (read_records(folder, options.model) for folder in (first, second))
    refuse_unknown_metric([*before, *after], options.metric)
    pairs = compare_folders(before, after, options.metric)
    rows = rows_of(pairs)
    failed = failed_rows(rows, options.fail_if)
    if options.json:
        print_json(rows)
    else:
        print(plain(sheet_of(pairs, first, second)), end="", flush=True)
    return max(say_failures(failed), 0 if one and other else 1)


def pair(records: Sequence[Record], trials: Sequence[str], metric: str | None, store: Store) -> Compared:
    """Return two trials with their paired difference.

    Raises:
        UsageError: if a text names no trial that was scored, or several, or they cannot be compared.
    """
    scored = [record for record in records if record.scores and record.kind != "real"]
    first, second, note = pair_of(scored, trials, metric)
    a, b = score_of(first, metric), score_of(second, metric)
    apart = _noise_apart(first, second, store)
    row = {**_row(second, b), **_differing(compare(b, a)), "paired": not apart}
    why = not_judged([a, b])
    if why:
        row["verdict"] = NOT_JUDGED
    of_a, of_b = store.influence(first, a.metric), store.influence(second, b.metric)
    if of_a is not None and of_b is not None:
        row["influence_se"] = influence_se(of_b - of_a)
    noise = f"not paired: {apart}" if apart else f"paired: one noise, of seed {first.trial.seed}"
    return Compared([_row(first, a), row], [*note, noise, *plain_note([a, b]), *_unjudged_note(why)])


def pair_of(
    records: Sequence[Record], trials: Sequence[str], metric: str | None
) -> tuple[Record, Record, Sequence[str]]:
    """Return the records that two texts name, of the samples that both have, and what is to be said of it.

    Raises:
        UsageError: if a text names no trial or several.
    """
    first, second = (_only(records, text, metric) for text in trials)
    return _sharing(records, first, second)


def _sharing(
    records: Sequence[Record], first: Record, second: Record
) -> tuple[Record, Record, Sequence[str]]:
    """Return the records of the samples that two trials share, and what is to be said of it.

    A trial that was drawn in rounds has records of its first samples too. Where the two have no number of
    samples in common they are returned as they are.
    """
    of_first, of_second = (
        {r.trial.n: r for r in records if r.trial.at_any_n == one.trial.at_any_n} for one in (first, second)
    )
    n = max(set(of_first) & set(of_second), default=None)
    if n is None or first.trial.n == second.trial.n:
        return first, second, ()
    return of_first[n], of_second[n], (f"compared on the {n:,} images that both have",)


def _noise_apart(first: Record, second: Record, store: Store) -> str:
    """Return why two trials were not drawn from one noise; empty where they were.

    Noise is a function of seed, sample index, step and the shape of an image, whatever the batch. The shape
    is that of the pictures kept; without them it counts as the same. Nobody knows the noise behind images
    that were given.
    """
    if given := [record.sampler.label for record in (first, second) if record.given]:
        return f"the images of {' and '.join(given)} were given, not drawn here"
    seeds = [record.trial.seed for record in (first, second)]
    if seeds[0] != seeds[1]:
        return f"seeds {seeds[0]} and {seeds[1]}"
    if first.trial.model == second.trial.model:
        return ""
    shapes = []
    for record in (first, second):
        with suppress(BenchError):  # a picture that cannot be read tells nothing
            images = store.previews(record)
            shapes += [] if images is None else ["x".join(map(str, images.shape[1:]))]
    return f"images of {' and '.join(shapes)}" if len(set(shapes)) > 1 else ""


def columns_of(
    records: Sequence[Record], steps: int | None, budget: int | None, metric: str | None, store: Store
) -> list[Compared]:
    """Return the trials of one number of steps, or within a budget, a column for each table that has them.

    A column that cannot be compared is shown with the reason beside those that can.

    Raises:
        UsageError: if no trial has the number of steps, or none of the columns can be compared.
    """
    found: list[Compared] = []
    refused: list[UsageError] = []
    for table in tables_of(records, metric):
        cells = _chosen(table, steps, budget)
        scored = [(row, cell) for row, cell in cells if cell.score is not None]
        if not scored:
            continue
        try:
            found.append(_column(table, scored, store))
        except UsageError as error:
            refused.append(error)
            rows = [{**_row_of(row, cell), "table": table.title} for row, cell in scored]
            found.append(Compared(rows, [f"not compared: {error}"], table.title))
    if not found:
        lacking = f"the score {metric!r}" if metric else "a score"
        if steps is None:
            raise UsageError(f"no trial of at most {budget} network calls has {lacking}")
        there = any(record.trial.steps == steps for record in records)
        raise UsageError(
            f"no trial of {steps} steps has {lacking}" if there else f"no trial has {steps} steps"
        )
    if len(refused) == len(found):
        raise refused[0]
    return found


def _chosen(table: Table, steps: int | None, budget: int | None) -> list[tuple[str, Cell]]:
    """Return (row, cell) of S steps, or each row's cell of the most network calls within a budget."""
    found = []
    for row in table.rows:
        cells = [cell for (label, _), cell in table.cells.items() if label == row]
        if budget is None:
            fitting = [cell for cell in cells if cell.record.trial.steps == steps]
        else:
            fitting = [cell for cell in cells if cell.score is not None and 0 < calls(cell) <= budget]
        if fitting:
            found.append((row, max(fitting, key=calls)))
    return found


def _column(table: Table, scored: Sequence[tuple[str, Cell]], store: Store) -> Compared:
    """Return the trials of a table's column, best first, each compared with the best."""
    scores = [cell.score for _, cell in scored if cell.score is not None]
    sign = -1 if scores[0].higher_is_better else 1

    def place(item: tuple[str, Cell]) -> tuple[bool, float]:
        return is_beaten(item[1]), sign * estimate(_own(item[1]))

    (first, best), *others = sorted(scored, key=place)
    pairs = [shared(cell, best) for _, cell in others]
    compared = [compare(score, top) for score, top in pairs]
    adjusted = holm([one.p for one in compared])
    why = not_judged(scores)
    rows = [{**_row_of(first, best), "verdict": NOT_JUDGED if why else "best"}]
    for (row, cell), one, p in zip(others, compared, adjusted, strict=True):
        verdict = NOT_JUDGED if why else "worse" if p < 0.05 or is_beaten(cell) else "tie"
        paired = not _noise_apart(best.record, cell.record, store)
        told = {**_differing(one), "p": p, "verdict": verdict, "paired": paired}
        rows.append({**_row_of(row, cell), **told})
    rows = [{**row, "table": table.title} for row in rows]
    fewer = {score.n for score, _ in pairs if score.n != _own(best).n}
    notes = (
        [f"compared on the images that a row and the best share, at least {min(fewer):,}"] if fewer else []
    )
    notes += [*_apart_note(rows), *plain_note(scores)] if others else []
    return Compared(rows, [*notes, *_unjudged_note(why)], table.title)


def _apart_note(rows: Sequence[dict[str, object]]) -> list[str]:
    """Return the line that names the rows of a column that do not share the best one's noise, if any."""
    apart = [str(row["trial"]) for row in rows if row.get("paired") is False]
    return [f"not paired with the best: {', '.join(apart)}"] if apart else []


def _own(cell: Cell) -> Score:
    assert cell.score is not None  # only such cells are compared
    return cell.score


def _row_of(label: str, cell: Cell) -> dict[str, object]:
    return _row(cell.record, _own(cell), label)


def _only(records: Sequence[Record], text: str, metric: str | None) -> Record:
    """Return the one trial that a text names; of several, the one that has the score.

    Raises:
        UsageError: if there is none, or several; the sentence says in what these differ.
    """
    found = matching(list(records), text)
    found = [record for record in found if not record.continued] or found
    found = [record for record in found if metric in record.scores] or found
    if len(found) == 1:
        return found[0]
    names = [field.name for field in fields(Trial)]
    differing = [name for name in names if len({str(getattr(record.trial, name)) for record in found}) > 1]
    keys = [
        f"{one.key} ({', '.join(_told(name, getattr(one.trial, name)) for name in differing)})"
        for one in found
    ]
    raise UsageError(
        f"{text} names {len(found)} trials that differ in {', '.join(differing)};"
        f" give one of their keys: {', '.join(keys)}"
    )


def _told(name: str, value: object) -> str:
    """Return a field of a trial in words: ``seed 1``, ``reference the model's``."""
    if value is None:
        return f"{name} the model's"
    return f"{name} {'+'.join(map(str, value)) if isinstance(value, list) else value}"


def score_of(record: Record, metric: str | None) -> Score:
    """Return a record's score in a metric, its first where that is None; UsageError where it has none."""
    name = metric or next(iter(record.scores))
    if name not in record.scores:
        raise UsageError(f"{record.sampler.label} has no score {name!r}; it has {', '.join(record.scores)}")
    return record.scores[name]


def _worthless(score: Score) -> str:
    """Return why a score's corrected value is of no use; empty where it is of use."""
    if not math.isfinite(score.debiased):
        return "no bias correction"
    lone = {flag: replace(score, flags=(flag,), target=None) for flag in score.flags}
    return ", ".join(flag for flag, one in lone.items() if estimate(one) != score.debiased)


def plain_note(scores: Sequence[Score]) -> list[str]:
    """Return the line that says why plain values are compared, none where corrected ones are."""
    reasons = dict.fromkeys(filter(None, map(_worthless, scores)))
    return [f"plain values compared: {', '.join(reasons)}"] if reasons else []


def _unjudged_note(why: str) -> list[str]:
    return [f"{NOT_JUDGED}: every score is {why}"] if why else []


def _row(record: Record, score: Score, label: str = "") -> dict[str, object]:
    return {
        "trial": f"{label or record.sampler.label} S={record.trial.steps}",
        "key": record.key,
        "calls": record.cost.calls if record.cost else None,
        "metric": score.metric,
        "score": score.value,
        "corrected": None if _worthless(score) else score.debiased,
        "flags": list(score.flags),
    }


def _differing(found: Comparison) -> dict[str, object]:
    fields = asdict(found)
    return {name: fields[name] for name in ("difference", "se", "z", "p", "low", "high", "verdict")}


def _line(row: dict[str, object]) -> str:
    corrected = "-" if row["corrected"] is None else f"{row['corrected']:.5g}"
    line = f"{row['trial']:<34} {row['score']:>12.5g} {corrected:>12}"
    if "difference" in row:
        shown = f"{row['difference']:+.4g} ± {row['se']:.2g}"
        line += f"  {shown:>24} {row['z']:>7.1f} {row['p']:>9.2g}"
    else:
        line += " " * 43
    line = f"{line}  {row.get('verdict', '')}".rstrip()
    if "influence_se" in row:
        line += f"\n{'':<34} by influence values the difference's error is {row['influence_se']:.2g}"
    return line
