"""Does the winner survive? How sure the ranks of a table are, and what becomes of them elsewhere.

A column's rows are ranked again with the groups of samples drawn anew, with fewer groups, by plain values, by
every other score that the records hold, and in every other table that has the same rows and column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.errors import UsageError
from bench.records.record import Record
from bench.report.tables.budgets import arranged
from bench.report.tables.sheets import Sheet
from bench.report.tables.table import SAME, Table, tables_of
from bench.stats.ranking import Agreement, Rank, Values, agreement, losses, ranks, redrawn, steadiness
from bench.stats.score import Score

PARTS = ((0.5, "half of the samples"), (0.25, "a quarter of the samples"))
"""Parts of the groups that are drawn, with their names."""

SURE = 0.95
"""The winner survives where it is the best in at least so many of the draws."""

RANK_NOTES = (
    "how often a row is the best of its column when the groups of samples are drawn again, paired as the rows"
    " are, and in brackets the 95% interval of its rank",
)

SURVIVAL_NOTES = (
    "tau: Kendall's, of the order of the rows in both; 1 is one order, 0 none; with the 95% interval, which"
    " leans towards 0, as drawing again adds the samples' noise once more",
    "chance: how often the table's winner is the best there",
)


class Column(NamedTuple):
    """A column of a table, ranked.

    Attributes:
        rows: labels.
        values: what they are ranked by, (1, rows).
        drawn: the same in every draw, (draws, rows).
    """

    rows: tuple[str, ...]
    values: Values
    drawn: Values

    @property
    def ranks(self) -> dict[str, Rank]:
        """Where every row stands."""
        return dict(zip(self.rows, ranks(self.values, self.drawn), strict=True))

    @property
    def winner(self) -> str:
        """The best row."""
        return self.rows[int(self.values[0].argmin())]

    def of(self, rows: Sequence[str]) -> Column:
        """Return the column of some of its rows, in their order."""
        places = [self.rows.index(row) for row in rows]
        return Column(tuple(rows), self.values[:, places], self.drawn[:, places])


@dataclass(frozen=True)
class Survival:
    """What becomes of a column's winner under another condition.

    Attributes:
        head: the column.
        winner: the best row of the table.
        condition: what is other, in words.
        there: the best row there.
        chance: how often the table's winner is the best there.
        rows: number of rows that both have.
        agreement: how far the two orders agree.
    """

    head: str
    winner: str
    condition: str
    there: str
    chance: float
    rows: int
    agreement: Agreement

    @property
    def verdict(self) -> str:
        """``survives``, ``open``, or ``another wins`` where another row is the best by the estimates."""
        if self.winner != self.there:
            return "another wins"
        return "survives" if self.chance >= SURE else "open"


def ranked(table: Table, column: int, part: float = 1.0, *, plain: bool = False) -> Column | None:
    """Return a column of a table, ranked; None where fewer than two scores can be compared, or none judged.

    Args:
        table: the table, by steps or by calls.
        column: one of its columns.
        part: the part of the groups that a draw takes.
        plain: whether plain values are ranked, and not bias-corrected ones.
    """
    scores = {row: _plainly(one) if plain else one for row, one in table.scores(column).items()}
    if len(scores) < 2 or table.unjudged(column):
        return None
    given = list(scores.values())
    try:
        return Column(tuple(scores), losses(given), redrawn(given, part))
    except UsageError:  # without jackknife groups, or not to be compared
        return None


def _plainly(score: Score) -> Score:
    return replace(score, debiased=score.value)


def rank_sheet(table: Table) -> Sheet | None:
    """Return how sure every rank of a table is, samplers down; None where there is nothing to rank."""
    found = {column: one for column in table.columns if (one := ranked(table, column)) is not None}
    if not found:
        return None
    places = {column: one.ranks for column, one in found.items()}
    rows = [
        [row, *(_told(places[column].get(row)) for column in found)]
        for row in table.rows
        if any(row in one for one in places.values())
    ]
    lines = [
        {
            "sampler": row, "column": table.head(column), "rank": rank.place, "best_share": rank.best,
            "rank_low": rank.low, "rank_high": rank.high,
        }
        for column, one in places.items()
        for row, rank in one.items()
    ]  # fmt: skip
    return Sheet(
        f"How sure the ranks are: {table.title}",
        ["sampler", *map(table.head, found)],
        rows,
        pd.DataFrame(lines),
        "\n".join(RANK_NOTES),
        frozenset({"sampler"}),
    )


def survival_sheet(table: Table, others: Iterable[tuple[str, Table]] = ()) -> Sheet | None:
    """Return what becomes of a table's winners under every other condition; None where there are none.

    Args:
        table: whose winners they are.
        others: (condition in words, the table made under it).
    """
    found = list(survivals(table, list(others)))
    if not found:
        return None
    rows = [
        [
            one.head, one.condition, one.winner, one.there, f"{one.chance:.0%}", _tau(one.agreement),
            str(one.rows), one.verdict,
        ]
        for one in found
    ]  # fmt: skip
    lines = [
        {
            "column": one.head, "condition": one.condition, "winner": one.winner, "winner_there": one.there,
            "chance": one.chance, "rows": one.rows,
            "tau": one.agreement.tau, "tau_low": one.agreement.low, "tau_high": one.agreement.high,
            "verdict": one.verdict,
        }
        for one in found
    ]  # fmt: skip
    return Sheet(
        f"Does the winner survive? {table.title}",
        ["column", "condition", "winner", "winner there", "chance", "tau", "rows", "verdict"],
        rows,
        pd.DataFrame(lines),
        "\n".join(SURVIVAL_NOTES),
        frozenset({"column", "condition", "winner", "winner there", "verdict"}),
    )


def survivals(table: Table, others: Sequence[tuple[str, Table]] = ()) -> Iterator[Survival]:
    """Yield what becomes of the winner of each column: drawn again, with fewer samples, and elsewhere."""
    for column in table.columns:
        base = ranked(table, column)
        if base is None:
            continue
        yield _survival(table.head(column), base, "drawn again", base, same=True)
        for part, name in PARTS:
            fewer = ranked(table, column, part)
            if fewer is not None:
                yield _survival(table.head(column), base, name, fewer, same=True)
        unlike = ranked(table, column, plain=True)
        if unlike is not None and not np.allclose(unlike.values, base.values):
            yield _survival(table.head(column), base, "not bias-corrected", unlike)
        for name, other in others:
            there = ranked(other, column) if column in other.columns else None
            if there is not None and len(set(base.rows) & set(there.rows)) > 1:
                yield _survival(table.head(column), base, name, there)


def _survival(head: str, base: Column, condition: str, there: Column, *, same: bool = False) -> Survival:
    """Return what becomes of the best of the rows that both have.

    Args:
        head: the column.
        base: as the table has it.
        condition: what is other, in words.
        there: the column under that condition.
        same: whether these are the same scores: their order is then held to its own draws.
    """
    rows = [row for row in base.rows if row in there.rows]
    mine, theirs = base.of(rows), there.of(rows)
    if same:
        found = steadiness(mine.values, theirs.drawn)
    else:
        found = agreement((mine.values, mine.drawn), (theirs.values, theirs.drawn))
    chance = theirs.ranks[mine.winner].best
    return Survival(head, mine.winner, condition, theirs.winner, chance, len(rows), found)


def conditions(table: Table, records: Iterable[Record]) -> list[tuple[str, Table]]:
    """Return (what is other, table) for every table of some records but one: all scores, all models."""
    records = list(records)
    names = dict.fromkeys(name for record in records for name in record.scores)
    made = [arranged(one, table.by) for name in names for one in tables_of(records, name)]
    own = _identity(table)
    return [(_apart(table, other), other) for other in made if _identity(other) != own]


def _identity(table: Table) -> tuple[object, ...]:
    return table.metric, table.measure, _trial(table)


def _trial(table: Table) -> tuple[object, ...]:
    return tuple(getattr(table.trial, name) for name in SAME)


def _apart(table: Table, other: Table) -> str:
    """Return in words how a table differs from another one."""
    told = [other.metric] if other.metric != table.metric else []
    for name, mine, theirs in zip(SAME, _trial(table), _trial(other), strict=True):
        if mine != theirs:
            told.append(f"n={theirs:,}" if name == "n" else f"{name} {theirs or 'of the model'}")
    return ", ".join(told) or "other weights, feature space or reference"


def stability_sheets(records: Sequence[Record], table: Table) -> list[Sheet]:
    """Return both sheets of a table, without those that there is nothing for."""
    sheets = (rank_sheet(table), survival_sheet(table, conditions(table, records)))
    return [sheet for sheet in sheets if sheet is not None]


def _told(rank: Rank | None) -> str:
    if rank is None:
        return ""
    between = f"{rank.low}" if rank.low == rank.high else f"{rank.low} to {rank.high}"
    return f"{rank.best:.0%} ({between})"


def _tau(found: Agreement) -> str:
    return f"{found.tau:.2f} ({found.low:.2f} to {found.high:.2f})"
