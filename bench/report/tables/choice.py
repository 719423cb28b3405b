"""Which rows of a table are shown, in which order and under which names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from bench.diffusion.sampling import get_sampler
from bench.errors import UnknownNameError, UsageError
from bench.files.atomic import readable
from bench.report.tables.table import Table, short_spacing


@dataclass(frozen=True)
class Choice:
    """What is to be shown of tables.

    Attributes:
        rows: labels of rows in their order, samplers as ``ddim:eta=0``, or patterns as ``ddim*``; all where
            empty.
        labels: other labels of rows or of samplers, by their own.
        title: text above; nothing where it is empty, the table's own where None.
    """

    rows: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    title: str | None = None

    def of(self, tables: Iterable[Table]) -> list[Table]:
        """Return the tables as they are to be shown, without those that have none of the rows.

        Raises:
            UsageError: if no table has a row that is named, or two rows would bear one label.
        """
        tables = list(tables)
        meant = replace(
            self,
            rows=[_meant(row, tables) for row in self.rows],
            labels={_meant(old, tables): new for old, new in self.labels.items()},
        )
        found = [meant._renamed(chosen) for table in tables if (chosen := meant._rows_of(table)).known]
        return found if self.title is None else [replace(table, title=self.title) for table in found]

    def _rows_of(self, table: Table) -> Table:
        """Return the table of the rows that are wanted, in the order in which they are named."""
        if not self.rows:
            return table
        fitting = (
            row
            for wanted in self.rows
            for row in table.rows
            if any(_fits(name, wanted) for name in _names(table, row))
        )
        rows = list(dict.fromkeys(fitting))
        cells = {place: cell for place, cell in table.cells.items() if place[0] in rows}
        return replace(
            table,
            known={row: table.known[row] for row in rows},
            cells=cells,
            columns=[column for column in table.columns if any(column == place[1] for place in cells)],
            left_out=len(table.known) - len(rows),
        )

    def _renamed(self, table: Table) -> Table:
        if not self.labels:
            return table
        new = {row: self._label(table, row) for row in table.rows}
        if len(set(new.values())) < len(new):
            twice = next(label for label in new.values() if list(new.values()).count(label) > 1)
            raise UsageError(f"two rows would be called {twice!r}; give them different labels")
        return replace(
            table,
            known={new[row]: known for row, known in table.known.items()},
            cells={(new[row], column): cell for (row, column), cell in table.cells.items()},
            renamed=self.labels,
        )

    def _label(self, table: Table, row: str) -> str:
        """Return what a row is to be called; with its time grid where a sampler on several was renamed."""
        if row in self.labels:
            return self.labels[row]
        new = next((self.labels[name] for name in _names(table, row) if name in self.labels), None)
        if new is None:
            return row
        several = len(table.spacings) > 1
        return f"{new} on {short_spacing(table.known[row].spacing)}" if several else new


def _names(table: Table, row: str) -> tuple[str, ...]:
    """Return what a row can be called: its label, its sampler's own label, and the sampler as text."""
    return row, table.row_info(row).label, table.known[row].sampler


def _fits(name: str, wanted: str) -> bool:
    return name == wanted or fnmatchcase(name, wanted)


def _found(text: str, tables: Sequence[Table]) -> str | None:
    """Return what a text calls a row: itself, or a sampler with its defaults; None where it calls none."""
    names = {name for table in tables for row in table.rows for name in _names(table, row)}
    if any(_fits(name, text) for name in names):
        return text
    try:
        spec = get_sampler(text).spec
    except UsageError:
        return None
    return spec if spec in names else None


def _meant(text: str, tables: Sequence[Table]) -> str:
    """Return what a text calls a row, see `_found`.

    Raises:
        UnknownNameError: if there is no such row.
    """
    name = _found(text, tables)
    if name is None:
        raise UnknownNameError("row", text, {row for table in tables for row in table.rows})
    return name


def parse_labels(given: Iterable[str], tables: Iterable[Table]) -> dict[str, str]:
    """Return labels by the old ones from texts ``old=new``, whose old part may hold ``=`` itself.

    Raises:
        UsageError: if a text begins with the name of no row.
    """
    tables, found = list(tables), {}
    for text in given:
        ends = [place for place, letter in enumerate(text) if letter == "="]
        named = [end for end in ends if _found(text[:end], tables) is not None]
        end = max(named, default=len(text.rpartition("=")[0] or text))
        found[_meant(text[:end], tables)] = readable(text[end + 1 :])
    return found
