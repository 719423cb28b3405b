"""A table in plain words: who is best at what, by how much, and what could not be told."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.errors import UsageError
from bench.report.tables.budgets import arranged
from bench.report.tables.findings import ClaimResult
from bench.report.tables.table import Cell, Table, higher_is_better, milliseconds, shared, target
from bench.stats.comparison import compare, estimate, not_judged
from bench.stats.score import Score
from bench.stats.sequential import ALPHA

NEAR = 1.1
"""A cell is as good as the best for a summary if its score is within 10%."""


MUCH = 1.2
"""Times differ from run to run: less than this is no gain worth a sentence."""


@dataclass(frozen=True)
class Best:
    """The best of one column.

    Attributes:
        column: a number of steps, or of network calls.
        head: what heads the column.
        row: the sampler.
        score: its score.
        ties: samplers that cannot be told from it at 95% after Holm's correction.
        milliseconds: the time of sampling an image.
    """

    column: int
    head: str
    row: str
    score: Score
    ties: tuple[str, ...]
    milliseconds: float


def best_of_columns(table: Table) -> list[Best]:
    """Return the best row of each column, with those that tie with it."""
    found = []
    for column in table.columns:
        cells = {row: cell for row in table.rows if (cell := table.cells.get((row, column)))}
        scores = {row: cell.score for row, cell in cells.items() if cell.score is not None}
        row, ties = table.leaders(column)
        if row is not None:
            best = Best(column, table.head(column), row, scores[row], ties, milliseconds(cells[row]))
            found.append(best)
    return found


def sentences(table: Table, findings: Sequence[ClaimResult]) -> list[str]:
    """Return what a table says, a sentence or two each."""
    cells = [(row, steps, cell) for row in table.rows for steps, cell in table.series(row)]
    if not cells:
        return ["No trial of this table has a score."]
    if why := not_judged(cell.score for *_, cell in cells if cell.score is not None):
        return list(filter(None, [f"Nothing here can be judged: every score is {why}.", _not_done(table)]))
    told = [
        _best_of_all(table, cells),
        _few_steps(arranged(table)),
        _cheapest(table, cells),
        _more_steps(table),
    ]
    told += [_claims(findings), _not_done(table)]
    return [sentence for sentence in told if sentence]


def plus_minus(score: Score) -> str:
    """Return a score with its standard error, rounded to two figures of the error."""
    if not math.isfinite(score.se) or score.se <= 0:
        return f"{score.value:.4g}"
    decimals = min(6, max(0, 1 - int(f"{score.se:.1e}".partition("e")[2])))
    return f"{score.value:.{decimals}f} ± {score.se:.{decimals}f}"


def short(value: float) -> str:
    """Return a number with three figures and no exponent: 0.217, 4,620."""
    if value and abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def _value(table: Table, cell: Cell) -> float:
    """Return the score so that less is better."""
    assert cell.score is not None
    right, value = target(table), cell.score.value
    return abs(value - right) if right is not None else -value if higher_is_better(table) else value


def _best(table: Table, cells: Sequence[tuple[str, int, Cell]]) -> tuple[str, int, Cell]:
    """Return the best of all cells, bias-corrected where that is possible, as the columns' best are.

    A column of which no verdict can be had has no best to offer, unless they all are such.
    """
    judged = [item for item in cells if not table.unjudged(item[1])]

    def rank(item: tuple[str, int, Cell]) -> float:
        score = item[2].score
        assert score is not None
        return -estimate(score) if score.higher_is_better else estimate(score)

    return min(judged or cells, key=rank)


def _best_of_all(table: Table, cells: Sequence[tuple[str, int, Cell]]) -> str:
    row, steps, cell = _best(table, cells)
    assert cell.score is not None
    said = f"The best {table.metric} is {plus_minus(cell.score)}, of {row} at S={steps}."
    if table.floor is None:
        return said
    floor = f"Real images in the place of samples score {plus_minus(table.floor)}"
    if higher_is_better(table) or target(table) is not None or table.floor.value <= 0:
        return f"{said} {floor}."
    ratio = cell.score.value / table.floor.value
    if ratio < 1:
        return f"{said} {floor}: the sampler is at that floor."
    return f"{said} {floor}: the best score is {ratio:.3g} times that."


def _few_steps(table: Table) -> str:
    """Return who is best and worst with the fewest steps, or network calls."""
    found = best_of_columns(table)
    if not found:
        return ""
    first = found[0]
    at = first.column
    there = [(row, table.cells[row, at]) for row in table.rows if (row, at) in table.cells]
    scored = [(row, cell) for row, cell in there if cell.score is not None]
    if len(scored) < 2:
        return ""
    worst, cell = max(scored, key=lambda item: _value(table, item[1]))
    assert cell.score is not None
    tie = f", not to be told from {listed(some(first.ties))}" if first.ties else ", and no other ties with it"
    few = f"{at} steps" if table.by == "steps" else f"at most {at} network calls"
    return (
        f"With {few} {first.row} is best ({plus_minus(first.score)}){tie};"
        f" {worst} is worst ({plus_minus(cell.score)})."
    )


def _cheapest(table: Table, cells: Sequence[tuple[str, int, Cell]]) -> str:
    """Return the fastest cell whose score is near the best."""
    best = _best(table, cells)
    limit = _value(table, best[2])
    limit = limit * NEAR if limit > 0 else limit / NEAR
    near = [item for item in cells if _value(table, item[2]) <= limit]
    row, steps, cell = min(near, key=lambda item: milliseconds(item[2]))
    mine, fastest = milliseconds(best[2]), milliseconds(cell)
    if not fastest or mine / fastest < MUCH:
        return f"No much faster cell is within 10% of the best score, which takes {short(mine)} ms an image."
    times = f"{short(fastest)} ms an image instead of {short(mine)}, {mine / fastest:.3g} times as fast"
    return f"Within 10% of the best score the fastest is {row} at S={steps}: {times}."


def _more_steps(table: Table) -> str:
    """Return up to which S the first sampler gains from more steps, by paired comparison."""
    row = table.rows[0]
    series = table.series(row)
    last = None
    for (_, before), (steps, after) in itertools.pairwise(series):
        now, then = shared(after, before)
        try:
            found = compare(now, then)
        except UsageError:
            return ""
        gained = found.p / 2 < ALPHA and (found.difference > 0) == now.higher_is_better
        last = steps if gained else last
    if len(series) < 2:
        return ""
    if last is None:
        return f"More steps bring {row} no gain that is larger than its error."
    if last == series[-1][0]:
        return f"{row} still gains at S={last}, the most steps there are."
    return f"{row} gains from more steps up to S={last}; beyond it no gain is larger than its error."


def _claims(findings: Sequence[ClaimResult]) -> str:
    tested = [finding for finding in findings if finding.verdict not in ("not tested", "not judged")]
    if not tested:
        return ""
    counts = [
        f"{sum(finding.verdict == verdict for finding in tested)} {word}"
        for verdict, word in (("holds", "hold"), ("fails", "fail"), ("undecided", "undecided"))
    ]
    return f"Of {len(tested)} orderings that the papers show and this table can test: {', '.join(counts)}."


def _not_done(table: Table) -> str:
    statuses = [cell.record.status for cell in table.cells.values()]
    parts = [f"{statuses.count(s)} {s}" for s in ("failed", "skipped") if s in statuses]
    return f"Of {len(statuses)} trials {' and '.join(parts)}." if parts else ""


def some(names: Sequence[str], most: int = 6) -> list[str]:
    """Return names, the last of many replaced by their number."""
    return [*names[:most], f"{len(names) - most} others"] if len(names) > most + 1 else list(names)


def listed(names: Sequence[str]) -> str:
    """Return names in a sentence: a, b and c."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
