"""Boards: trials of many results folders that can be held against each other, whatever machine drew them.

A board has one model, one score and one reference; its lines are a sampler with a number of steps on a
machine. Scores of two machines stand in one board, since the noise is the same; times never share a Pareto
front, since they are the machine's as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.records.record import Record
from bench.report.plots.score import pareto_front
from bench.report.tables.budgets import arranged
from bench.report.tables.sheets import Mark
from bench.report.tables.summary import Best, best_of_columns
from bench.report.tables.table import (
    Cell,
    Table,
    calls,
    cost_of,
    higher_is_better,
    milliseconds,
    tables_of,
    target,
)
from bench.spec import split_spec
from bench.stats.comparison import estimate
from bench.stats.score import Score

CALLS, TIME = "calls", "time"
"""The two costs that a line may be on the Pareto front of."""


@dataclass(frozen=True)
class Line:
    """A sampler with a number of steps on a machine.

    Attributes:
        label: the sampler's name in its board.
        record: the trial's.
        score: in the board's metric.
        machine: what drew it.
        latency: sampling time of an image in units of one bare network call, see `latency_of`.
        mark: whether it is the best of those with as many network calls there, or cannot be told from it.
        fronts: the costs for which nothing of the board is as good and as cheap.
    """

    label: str
    record: Record
    score: Score
    machine: str
    latency: float | None
    mark: Mark | None
    fronts: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """Trials that can be held against each other.

    Attributes:
        tables: the table that each machine's trials make, by machine.
        lines: every scored trial, the best first.
        bests: for each machine, the best of every number of network calls.
    """

    tables: Mapping[str, Table]
    lines: Sequence[Line]
    bests: Mapping[str, Sequence[Best]]

    @property
    def table(self) -> Table:
        """The first machine's table: model, score and floor are as in any other."""
        return next(iter(self.tables.values()))


def machine_of(record: Record) -> str:
    """Return what drew a trial: the device, and the threads where it is a processor."""
    environment, device = record.environment, record.trial.device
    name = environment.device_name or f"an unnamed {device}"
    threads = environment.threads if device == "cpu" else None
    return name if threads is None else f"{name}, {threads} thread{'s' * (threads != 1)}"


def newest(records: Iterable[Record]) -> list[Record]:
    """Return each trial of each machine once: what was finished last, where it was made more than once."""
    found: dict[tuple[str, str], Record] = {}
    for record in sorted(records, key=lambda one: (one.environment.finished, one.key)):
        found[machine_of(record), record.key] = record
    return list(found.values())


def boards_of(records: Iterable[Record]) -> list[Board]:
    """Return the boards of some records, by model, the score that it is judged by first.

    Bounds on likelihoods are left out: no sampler drew anything for them.
    """
    by_machine: dict[str, list[Record]] = {}
    for record in newest(records):
        if record.kind != "bound":
            by_machine.setdefault(machine_of(record), []).append(record)
    found: dict[tuple[object, ...], dict[str, Table]] = {}
    for machine, mine in sorted(by_machine.items()):
        for metric in sorted({name for record in mine for name in record.scores}):
            for table in tables_of(mine, metric):
                if any(cell.score is not None for cell in table.cells.values()):
                    found.setdefault(_content(table), {})[machine] = table
    made = [_board(tables) for tables in found.values()]
    return sorted(made, key=lambda board: _order(board.table))


def _content(table: Table) -> tuple[object, ...]:
    """Return what is equal in two tables whose scores can be compared, whatever drew them."""
    trial = table.trial
    options = split_spec(trial.model)[1]
    return table.measure, table.metric, options, trial.seed, trial.precision, trial.reference, _most(table)


def _most(table: Table) -> int:
    return max(cell.record.most for cell in table.cells.values())


def _order(table: Table) -> tuple[object, ...]:
    metrics = table.trial.metrics
    place = metrics.index(table.metric) if table.metric in metrics else len(metrics)
    return table.trial.model, place, table.metric, _most(table), table.title


def _board(tables: Mapping[str, Table]) -> Board:
    by_calls = {machine: arranged(table) for machine, table in tables.items()}
    bests = {machine: best_of_columns(table) for machine, table in by_calls.items()}
    fronts = _fronts(tables)
    lines: list[Line] = []
    for machine, table in tables.items():
        marks = _marks(by_calls[machine], bests[machine])
        for label, cell in _cells(table):
            key = cell.record.key
            on = tuple(cost for cost, front in fronts.items() if (machine, key) in front)
            assert cell.score is not None  # of a series
            lines.append(Line(label, cell.record, cell.score, machine, latency_of(cell), marks.get(key), on))
    return Board(tables, sorted(lines, key=_loss), bests)


def latency_of(cell: Cell) -> float | None:
    """Return the sampling time of an image in units of a bare network call; None where none was timed.

    It is calls * (seconds of sampling) / (seconds of the network alone), all of the same trial: a sampler
    whose own arithmetic and noise were free would show its calls. A trial is its own measure, since a machine
    is not equally fast on two days.
    """
    cost = cost_of(cell)
    return cost.calls * cost.sampling_seconds / cost.model_seconds if cost.model_seconds else None


def _cells(table: Table) -> list[tuple[str, Cell]]:
    """Return (label, cell) of every scored trial, once.

    A trial of all time steps stands in the rows of every grid of its table: here it is its own.
    """
    found: dict[str, tuple[str, Cell]] = {}
    for row in table.rows:
        for _, cell in table.series(row):
            whole = len(table.spacings) > 1 and cell.record.trial.spacing == "all"
            label = f"{row.rpartition(' on ')[0]} on all" if whole else row
            found.setdefault(cell.record.key, (label, cell))
    return list(found.values())


def _loss(line: Line) -> float:
    """Return what sorts lines, the best first: corrected for bias where that is possible, as verdicts are."""
    value = estimate(line.score)
    return -value if line.score.higher_is_better else value


def _marks(table: Table, bests: Sequence[Best]) -> dict[str, Mark]:
    """Return the mark of every trial that leads its column, by its key."""
    found: dict[str, Mark] = {}
    for best in bests:
        found |= {table.cells[row, best.column].record.key: "tie" for row in best.ties}
        found[table.cells[best.row, best.column].record.key] = "best"
    return found


def _fronts(tables: Mapping[str, Table]) -> Mapping[str, set[tuple[str, str]]]:
    """Return the (machine, key) of all trials on each Pareto front: of calls over all, of time by machine."""
    there = {machine: [cell for _, cell in _cells(table)] for machine, table in tables.items()}
    first = next(iter(tables.values()))
    everywhere = [(machine, cell) for machine, cells in there.items() for cell in cells]
    by_time: set[tuple[str, str]] = set()
    for machine, cells in there.items():
        by_time |= _front([(machine, cell, milliseconds(cell)) for cell in cells], first)
    return {CALLS: _front([(m, cell, calls(cell)) for m, cell in everywhere], first), TIME: by_time}


def _front(priced: Sequence[tuple[str, Cell, float]], table: Table) -> set[tuple[str, str]]:
    points = {
        (machine, cell.record.key): (cost, cell.score.value)
        for machine, cell, cost in priced
        if cell.score is not None and cost
    }
    front = set(pareto_front(points.values(), higher_is_better=higher_is_better(table), target=target(table)))
    return {place for place, point in points.items() if point in front}
