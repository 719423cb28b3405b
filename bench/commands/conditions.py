"""Conditions on rows of results, as ``--filter`` and ``--fail-if`` take them: ``steps<=20 and sampler=ddim``.

A condition is one or more comparisons with ``and`` between. A comparison is a column, one of
``= != < <= > >= ~`` and a value; ``|`` separates values of which any will do, and ``~`` asks whether the
column's text contains one. Columns are those of `bench.load_results`. What is missing is not equal to
anything, and neither below nor above it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import UnknownNameError, UsageError
from bench.spec import is_number

Row = Mapping[str, Any]

ORDERS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COMPARISON = re.compile(r"\s*(?P<column>[\w.-]+)\s*(?P<sign><=|>=|!=|==|=|<|>|~)\s*(?P<value>.*\S)\s*")


@dataclass(frozen=True)
class Comparison:
    """A column compared with a value.

    Attributes:
        column: its name.
        sign: one of ``= != < <= > >= ~``.
        values: the values, of which any will do; one alone where the sign is of an order.
    """

    column: str
    sign: str
    values: Sequence[str]

    def __str__(self) -> str:
        return f"{self.column}{self.sign}{'|'.join(self.values)}"

    def holds(self, row: Row) -> bool:
        """Return whether a row is so.

        Raises:
            UsageError: if the column is of words and the sign of an order.
        """
        found = row.get(self.column)
        if found is None:
            return self.sign == "!="
        if self.sign == "~":
            return any(value in str(found) for value in self.values)
        if self.sign in ("=", "!="):
            return any(_is(found, value) for value in self.values) == (self.sign == "=")
        if isinstance(found, str):
            raise UsageError(f"{self}: {self.column} holds words, as in {found!r}; use =, != or ~")
        return ORDERS[self.sign](float(found), float(self.values[0]))


@dataclass(frozen=True)
class Condition:
    """Comparisons that all have to hold.

    Attributes:
        comparisons: in the order in which they were given.
    """

    comparisons: Sequence[Comparison]

    def __str__(self) -> str:
        return " and ".join(map(str, self.comparisons))

    @classmethod
    def parse(cls, text: str, columns: Iterable[str]) -> Condition:
        """Return the condition that a text states.

        Args:
            text: as in ``steps<=20 and sampler=ddim``.
            columns: names of the columns there are.

        Raises:
            UsageError: if it states none, or an order of something that is no number.
            UnknownNameError: if there is no such column.
        """
        known = list(columns)
        return cls([_comparison(part, text, known) for part in re.split(r"\s+and\s+", text.strip())])

    def holds(self, row: Row) -> bool:
        """Return whether a row is so."""
        return all(one.holds(row) for one in self.comparisons)

    def told(self, row: Row) -> str:
        """Return what a row holds in the condition's columns, in words."""
        names = dict.fromkeys(one.column for one in self.comparisons)
        return ", ".join(f"{name} = {_shown(row.get(name))}" for name in names)

    def lacking(self, row: Row) -> list[str]:
        """Return the columns of orders that a row has no value in."""
        return [one.column for one in self.comparisons if one.sign in ORDERS and row.get(one.column) is None]


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Return the columns of some rows, each once."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _comparison(part: str, text: str, known: Sequence[str]) -> Comparison:
    found = _COMPARISON.fullmatch(part)
    if found is None:
        raise UsageError(
            f"{text!r} is no condition; give a column, one of = != < <= > >= ~ and a value, as in steps<=20"
        )
    column, sign = found["column"], found["sign"].replace("==", "=")
    if column not in known:
        raise UnknownNameError("column", column, known)
    values = [value.strip().strip("'\"") for value in found["value"].split("|")]
    if sign in ORDERS and not (len(values) == 1 and is_number(values[0])):
        raise UsageError(f"{text!r}: {column}{sign} takes a number, got {found['value']!r}")
    return Comparison(column, sign, values)


def _is(found: Any, value: str) -> bool:
    """Return whether what a row holds is what a text says."""
    if isinstance(found, bool):
        return str(found).lower() == value.lower()
    if isinstance(found, int | float):
        return is_number(value) and float(found) == float(value)
    return str(found) == value


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "nothing" if value is None else str(value)
