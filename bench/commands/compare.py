"""Compare two trials, paired through their common noise, or all trials of one number of steps with its best.

`compare ddim:eta=0@10 ddim:eta=1@10` gives the difference, its standard error and a verdict at 95%;
`compare --column 10` gives the rank of a column with ties, corrected for their number by Holm's method.
Where both trials kept their features (`run --keep-features`) a pair also gets the error by influence values.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from bench.commands.common import add_json, add_plugins, add_records, load_plugins, print_json, read_records
from bench.commands.show import matching
from bench.errors import UsageError
from bench.metrics.base import Score
from bench.record import FLOOR, Record
from bench.stats import Comparison, compare, estimate, holm, influence_se
from bench.store import Store

HEAD = f"{'':<34} {'score':>12} {'corrected':>12}  {'difference':>24} {'z':>7} {'p':>9}  verdict"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help="two of SAMPLER@STEPS or keys")
    parser.add_argument("--column", type=int, metavar="S", help="all trials of S steps with the best of them")
    parser.add_argument("--metric", help="score to compare [each record's first]")
    add_records(parser)
    add_plugins(parser)
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the comparison."""
    if len(options.trials) != (0 if options.column is not None else 2):
        raise UsageError("give two trials, as in ddim:eta=0@10 ddim:eta=1@10, or --column S")
    load_plugins(options.plugin)
    records, whole = read_records(options.results, options.model)
    done = [r for r in records if r.status == "done" and r.sampler.get("name") != FLOOR]
    if options.column is not None:
        rows = _column(done, options.column, options.metric)
    else:
        rows = _pair(done, options.trials, options.metric, Store(options.results))
    if options.json:
        print_json(rows)
    else:
        print(HEAD)
        for row in rows:
            print(_line(row))
    return 0 if whole else 1


def _pair(
    records: Sequence[Record], trials: Sequence[str], metric: str | None, store: Store
) -> list[dict[str, object]]:
    first, second = (_only(records, text) for text in trials)
    a, b = _score(first, metric), _score(second, metric)
    row = {**_row(second, b), **_differing(compare(b, a))}
    of_a, of_b = store.influence(first, a.metric), store.influence(second, b.metric)
    if of_a is not None and of_b is not None:
        row["influence_se"] = influence_se(of_b - of_a)
    return [_row(first, a), row]


def _column(records: Sequence[Record], steps: int, metric: str | None) -> list[dict[str, object]]:
    """Return the trials of one number of steps, best first, each compared with the best."""
    column = [record for record in records if record.trial["steps"] == steps]
    if not column:
        raise UsageError(f"no trial has {steps} steps")
    scored = [(record, _score(record, metric)) for record in column]
    sign = -1 if scored[0][1].higher_is_better else 1
    scored.sort(key=lambda item: sign * estimate(item[1]))
    (best, top), *others = scored
    compared = [compare(score, top) for _, score in others]
    adjusted = holm([one.p for one in compared])
    rows = [{**_row(best, top), "verdict": "best"}]
    for (record, score), one, p in zip(others, compared, adjusted, strict=True):
        verdict = "worse" if p < 0.05 else "tie"
        rows.append({**_row(record, score), **_differing(one), "p": p, "verdict": verdict})
    return rows


def _only(records: Sequence[Record], text: str) -> Record:
    found = matching(list(records), text)
    if len(found) > 1:
        keys = ", ".join(f"{record.key} ({record.trial['model']}, n={record.trial['n']})" for record in found)
        raise UsageError(f"{text} names {len(found)} trials; give one of their keys: {keys}")
    return found[0]


def _score(record: Record, metric: str | None) -> Score:
    name = metric or next(iter(record.scores))
    if name not in record.scores:
        raise UsageError(
            f"{record.sampler['label']} has no score {name!r}; it has {', '.join(record.scores)}"
        )
    return record.scores[name]


def _row(record: Record, score: Score) -> dict[str, object]:
    name = f"{record.sampler['label']} S={record.trial['steps']}"
    return {
        "trial": name,
        "key": record.key,
        "metric": score.metric,
        "score": score.value,
        "corrected": score.debiased,
    }


def _differing(found: Comparison) -> dict[str, object]:
    fields = asdict(found)
    return {name: fields[name] for name in ("difference", "se", "z", "p", "low", "high", "verdict")}


def _line(row: dict[str, object]) -> str:
    line = f"{row['trial']:<34} {row['score']:>12.5g} {row['corrected']:>12.5g}"
    if "difference" in row:
        shown = f"{row['difference']:+.4g} ± {row['se']:.2g}"
        line += f"  {shown:>24} {row['z']:>7.1f} {row['p']:>9.2g}"
    else:
        line += " " * 43
    line = f"{line}  {row.get('verdict', '')}".rstrip()
    if "influence_se" in row:
        line += f"\n{'':<34} by influence values the difference's error is {row['influence_se']:.2g}"
    return line
