"""``compare A/ B/``: two results folders trial by trial, the second against the first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.commands.conditions import Condition, columns_of
from bench.errors import UsageError
from bench.records.record import Record
from bench.report.tables.sheets import Sheet
from bench.report.tables.table import direction_of, row_order
from bench.stats.comparison import Comparison, compare, holm, not_judged
from bench.stats.score import Score
from bench.stats.sequential import ALPHA

STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
"""Marks of p-values below a bound, as journals print them."""

NO_SCORE = ("failed", "missing", "not compared", "not judged")
"""Verdicts without a comparison; `missing` is a trial of the first folder that the second has not."""

WORDS: Mapping[str, Sequence[str]] = {
    "worse": ("worse", "failed", "missing"),
    "better": ("better",),
    "tie": ("tie",),
    "differs": ("worse", "better", "failed", "missing"),
    **{verdict: (verdict,) for verdict in (*NO_SCORE, "new")},
}
"""What ``--fail-if`` may name in one word, with the verdicts it stands for: a score that is gone is worse."""

FIELDS = ("model", "sampler", "spacing", "steps", "n", "seed", "precision", "reference")
"""Fields in which trials of two folders have to be equal to be compared."""

Identity = tuple[object, ...]
"""A trial's values of those fields that matter."""

COLUMNS = ("trial", "first", "second", "difference", "p", "verdict")


@dataclass(frozen=True)
class Pair:
    """A trial in two folders.

    Attributes:
        title: sampler, time grid, number of steps and model, as far as trials differ in them.
        metric: name of the score.
        first: its record in the first folder, None where there is none.
        second: its record in the second folder.
        found: the second's score against the first's; None where nothing can be compared.
        verdict: ``better``, ``worse`` or ``tie`` of the second; or one of `NO_SCORE`, or ``new``.
        why: why there is no comparison; empty where there is one.
    """

    title: str
    metric: str
    first: Record | None
    second: Record | None
    found: Comparison | None
    verdict: str
    why: str = ""


def compare_folders(
    first: Sequence[Record], second: Sequence[Record], metric: str | None = None
) -> list[Pair]:
    """Return every trial of two folders, in the first one's order, then those that only the second has.

    Trials are the same where `FIELDS` are; weights and code may differ, which is what is asked about. So may
    a field of which each folder has one value, as where another model was sampled. p-values are corrected for
    their number by Holm's method.

    Args:
        first: records.
        second: records.
        metric: name of the score; None: the first that both records have.

    Raises:
        UsageError: if the folders have no trial in common, or none that can be compared.
    """
    first, second = _drawn(first), _drawn(second)
    apart = differing(first, second)
    names = [name for name in FIELDS if name not in apart]
    known, others = ({_identity(one, names): one for one in records} for records in (first, second))
    if not set(known) & set(others):
        raise UsageError(
            f"the folders have no trial in common: the same are those of one {', '.join(FIELDS)}"
        )
    titles = _titles({**known, **others, **known}, names)
    pairs = [_pair(titles[key], known.get(key), others.get(key), metric) for key in titles]
    if all(pair.found is None and pair.verdict in ("not compared", "new", "missing") for pair in pairs):
        why = next((pair.why for pair in pairs if pair.verdict == "not compared"), "")
        raise UsageError(f"no trial of the folders can be compared: {why}")
    return _corrected(pairs)


def _drawn(records: Iterable[Record]) -> list[Record]:
    """Return the trials of a folder in a table's order; of those that were drawn further, the last."""
    chosen = [one for one in records if one.kind != "real" and not one.continued]
    return sorted(
        chosen, key=lambda one: (one.trial.model, row_order(one), one.trial.spacing, one.trial.steps)
    )


def differing(first: Iterable[Record], second: Iterable[Record]) -> dict[str, tuple[Any, Any]]:
    """Return the fields that are one value in each of two folders, and not the same, with both values."""
    found = {}
    for name in FIELDS:
        a, b = ({getattr(one.trial, name) for one in records} for records in (list(first), list(second)))
        if len(a) == len(b) == 1 and a != b:
            found[name] = (a.pop(), b.pop())
    return found


def _identity(record: Record, names: Iterable[str]) -> Identity:
    return tuple(getattr(record.trial, name) for name in names)


def _titles(trials: Mapping[Identity, Record], names: Sequence[str]) -> dict[Identity, str]:
    """Return the name of every trial: its label and S, and what else trials of that name differ in."""
    rivals: dict[str, list[Identity]] = {}
    for key, one in trials.items():
        rivals.setdefault(one.title, []).append(key)
    titles = {}
    for key, one in trials.items():
        columns = zip(names, key, zip(*rivals[one.title], strict=True), strict=True)
        told = [f"{name} {value}" for name, value, values in columns if len(set(values)) > 1]
        titles[key] = f"{one.title} ({', '.join(told)})" if told else one.title
    return titles


def _pair(title: str, first: Record | None, second: Record | None, metric: str | None) -> Pair:
    """Return a trial in two folders, compared where it can be."""
    if first is None or second is None:
        (there,) = (one for one in (first, second) if one is not None)
        name = metric or next(iter(there.scores), "")
        return Pair(title, name, first, second, None, "new" if first is None else "missing")
    if first.scores and not second.scores:
        why = f"{second.status}: {second.message}"
        return Pair(title, metric or next(iter(first.scores)), first, second, None, "failed", why)
    name = metric or next((one for one in first.scores if one in second.scores), "")
    if name not in first.scores or name not in second.scores:
        why = f"no score {name!r} in both" if name else "no score that both have"
        return Pair(title, name, first, second, None, "not compared", why)
    a, b = first.scores[name], second.scores[name]
    try:
        found = compare(b, a)
    except UsageError as error:
        return Pair(title, name, first, second, None, "not compared", str(error))
    unjudged = not_judged([a, b])
    return Pair(title, name, first, second, found, "not judged" if unjudged else found.verdict, unjudged)


def _corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs with p-values corrected for their number, and the verdicts that these allow."""
    compared = [pair.found for pair in pairs if pair.found is not None]
    adjusted = iter(holm([found.p for found in compared]))
    made = []
    for pair in pairs:
        if pair.found is None:
            made.append(pair)
            continue
        found = replace(pair.found, p=next(adjusted))
        judged = pair.verdict not in NO_SCORE
        verdict = "tie" if judged and found.p >= ALPHA else pair.verdict
        made.append(replace(pair, found=found, verdict=verdict))
    return made


def rows_of(pairs: Iterable[Pair]) -> list[dict[str, Any]]:
    """Return the pairs as JSON has them."""
    return [
        {
            "trial": pair.title,
            "metric": pair.metric,
            **_side("first", pair.first, pair.metric),
            **_side("second", pair.second, pair.metric),
            **_differing(pair.found),
            "verdict": pair.verdict,
            "because": pair.why,
        }
        for pair in pairs
    ]


def _side(name: str, record: Record | None, metric: str) -> dict[str, Any]:
    score = record.scores.get(metric) if record is not None else None
    return {
        f"{name}_key": record.key if record is not None else None,
        name: None if score is None else score.value,
        f"{name}_se": None if score is None or math.isnan(score.se) else score.se,
    }


def _differing(found: Comparison | None) -> dict[str, Any]:
    names = ("difference", "se", "z", "p", "low", "high")
    return {name: None if found is None else getattr(found, name) for name in names}


def sheet_of(pairs: Sequence[Pair], first: Path, second: Path) -> Sheet:
    """Return the pairs as a table."""
    rows = [
        [
            pair.title,
            _told(pair.first, pair.metric),
            _told(pair.second, pair.metric),
            "" if pair.found is None else f"{pair.found.difference:+.3g} ± {pair.found.se:.2g}",
            "" if pair.found is None else f"{pair.found.p:.2g}{stars(pair.found.p)}",
            pair.verdict,
        ]
        for pair in pairs
    ]
    sides = [[one for one in side if one is not None] for side in zip(*map(_records, pairs), strict=True)]
    apart = differing(*sides)
    told = "".join(f"; {name}: {one} and {other}" for name, (one, other) in apart.items())
    scores = [s for pair in pairs for s in _scores(pair)]
    metrics = dict.fromkeys(f"{score.metric} ({direction_of(score)})" for score in scores)
    return Sheet(
        title=f"{first} (first) and {second} (second): {', '.join(metrics)}{told}",
        columns=list(COLUMNS),
        rows=rows,
        frame=pd.DataFrame(rows_of(pairs)),
        note="\n".join(_notes(pairs)),
        text=frozenset({"trial", "verdict"}),
    )


def stars(p: float) -> str:
    """Return the stars of a p-value: * below 5%, ** below 1%, *** below 0.1%."""
    return next((sign for bound, sign in STARS if p < bound), "")


def _told(record: Record | None, metric: str) -> str:
    score = record.scores.get(metric) if record is not None else None
    return "" if score is None else f"{score.value:.5g} ± {score.se:.2g}"


def _records(pair: Pair) -> tuple[Record | None, Record | None]:
    return pair.first, pair.second


def _scores(pair: Pair) -> list[Score]:
    records = [one for one in _records(pair) if one is not None]
    return [one.scores[pair.metric] for one in records if pair.metric in one.scores]


def _notes(pairs: Sequence[Pair]) -> Iterator[str]:
    """Yield what a reader of the table must know, a line each."""
    counts = Counter(pair.verdict for pair in pairs)
    yield ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    yield (
        "± one standard error; difference = second - first, bias-corrected where both can be, paired through"
        " the groups of samples; p by Holm over all: * below 5%, ** below 1%, *** below 0.1%"
    )
    reasons: dict[str, list[str]] = {}
    for pair in pairs:
        if pair.why:
            reasons.setdefault(f"{pair.verdict}: {pair.why}", []).append(pair.title)
    for reason, titles in reasons.items():
        yield f"{reason} ({', '.join(titles[:3])}{f' and {len(titles) - 3} more' if len(titles) > 3 else ''})"


def failed_rows(rows: Sequence[Mapping[str, Any]], conditions: Sequence[str]) -> list[str]:
    """Return a sentence for every row of a comparison of which a condition of ``--fail-if`` holds.

    Args:
        rows: as JSON has them, each with a ``verdict`` where it was judged.
        conditions: a word of `WORDS`, or a condition on the columns of the rows.

    Raises:
        UsageError: if a text is neither.
    """
    columns = columns_of(rows)
    found = []
    for text in conditions:
        if text in WORDS:
            hit = [row for row in rows if row.get("verdict") in WORDS[text]]
            found += [f"{row['trial']}: {row['verdict']}" for row in hit]
            continue
        try:
            condition = Condition.parse(text, columns)
        except UsageError as error:
            raise UsageError(f"--fail-if takes {', '.join(WORDS)}, or a condition: {error}") from None
        found += [
            f"{row['trial']}: {condition} ({condition.told(row)})" for row in rows if condition.holds(row)
        ]
    return found
