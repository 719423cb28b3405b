"""Which records belong in one table: those that differ in sampler, time grid and number of steps alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.device.modes import EAGER
from bench.diffusion.learned import is_learned
from bench.diffusion.spacing import count_listed
from bench.errors import UsageError
from bench.records.provenance import short_hash
from bench.records.record import SPLIT_OFF, Record, RowInfo
from bench.records.store import file_slug
from bench.records.trial import Cost, Trial
from bench.spec import split_spec
from bench.stats.comparison import estimate, not_judged, refuse_mixed, ties_with_best
from bench.stats.score import Score

SAME = ("model", "n", "seed", "precision", "device", "reference", "mode")
"""Fields of a trial that are equal all over a table."""


@dataclass(frozen=True)
class Measure:
    """What the scores of a table were measured with, by content: a file may change and keep its name.

    Attributes:
        weights: hash of the network's.
        space: fingerprint of the feature space.
        reference: hash of the reference.
        quantisation: the quantisation of the samples; empty where no score tells it.
    """

    weights: str
    space: str
    reference: str
    quantisation: str

    @classmethod
    def of(cls, record: Record, score: Score) -> Measure:
        """Return that of a record's score."""
        return cls(record.model.weights, score.space, score.reference, score.quantisation)


@dataclass(frozen=True)
class Cell:
    """One trial's place in a table.

    Attributes:
        record: the trial's.
        score: in the table's metric, None where the trial has none.
        earlier: scores of the first samples of a trial that was drawn in rounds, by their number.
    """

    record: Record
    score: Score | None
    earlier: Mapping[int, Score] = field(default_factory=dict)

    @property
    def by_n(self) -> Mapping[int, Score]:
        """Every score of the cell, by its number of samples."""
        return {**self.earlier, **({} if self.score is None else {self.score.n: self.score})}


def shared(a: Cell, b: Cell) -> tuple[Score, Score]:
    """Return the scores that two scored cells are compared by: of the most samples that both have.

    Without such samples they are the cells' own, which cannot be compared.
    """
    assert a.score is not None
    assert b.score is not None
    one, other = a.by_n, b.by_n
    n = max(set(one) & set(other), default=None)
    return (a.score, b.score) if n is None else (one[n], other[n])


def is_beaten(cell: Cell) -> bool:
    """Return whether a cell was dropped because another one of its column is better."""
    return cell.record.stopping is not None and cell.record.stopping.outcome == "beaten"


class Row(NamedTuple):
    """What the trials of a row have in common.

    Attributes:
        sampler: rule and parameters, as `Trial.sampler` has them.
        spacing: rule that chooses the time steps; trials of all time steps stand in the rows of other rules.
    """

    sampler: str
    spacing: str


By = Literal["steps", "calls"]
"""What heads the columns: S, or network calls at most."""


@dataclass(frozen=True)
class Table:
    """Records that can stand in one table.

    Attributes:
        title: what they have in common, in words.
        slug: the title as part of a file name.
        metric: name of the score.
        measure: what the scores were measured with.
        known: what every row is, by its label.
        columns: numbers of steps, ascending, or network calls.
        cells: the cells by (row, column).
        floor: the score of real images, where it was measured.
        floor_record: the record it is from.
        by: what the columns are.
        renamed: other labels of samplers, by their own.
        left_out: number of rows that are not shown.
    """

    title: str
    slug: str
    metric: str
    measure: Measure
    known: Mapping[str, Row]
    columns: Sequence[int]
    cells: dict[tuple[str, int], Cell]
    floor: Score | None
    floor_record: Record | None
    by: By = "steps"
    renamed: Mapping[str, str] = field(default_factory=dict)
    left_out: int = 0

    @property
    def rows(self) -> list[str]:
        """Labels of the samplers, by name and then by parameters, then by time grid."""
        return list(self.known)

    @property
    def clips(self) -> dict[str, str]:
        """How each row clips the predicted x_0, ``none`` where it does not."""
        return {row: _clip(cell.record) for (row, _), cell in self.cells.items()}

    @property
    def spacings(self) -> list[str]:
        """The rules of the time grids, each once."""
        return list(dict.fromkeys(row.spacing for row in self.known.values()))

    def on_each_grid(self) -> list[tuple[str, Table]]:
        """Return (rule of the time grid, the table of its rows under the samplers' own labels) of each."""
        if len(self.spacings) == 1:
            return [(self.spacings[0], self)]
        rows: dict[str, list[str]] = {spacing: [] for spacing in self.spacings}
        for row, known in self.known.items():
            rows[known.spacing].append(row)
        cells: dict[str, dict[tuple[str, int], Cell]] = {spacing: {} for spacing in rows}
        for (row, column), cell in self.cells.items():
            cells[self.known[row].spacing][row, column] = cell
        return [(spacing, self._of(rows[spacing], cells[spacing])) for spacing in rows]

    def _of(self, rows: Sequence[str], cells: Mapping[tuple[str, int], Cell]) -> Table:
        """Return the table of the rows of one grid, under the samplers' own labels."""
        own = {row: self.row_info(row).label for row in rows}
        short = {row: self.renamed.get(label, label) for row, label in own.items()}
        if len(set(short.values())) < len(short):  # two rules of one label are told in full
            short = {row: self.known[row].sampler for row in short}
        return replace(
            self,
            known={label: self.known[row] for row, label in short.items()},
            cells={(short[row], column): cell for (row, column), cell in cells.items()},
        )

    def of_column(self, column: int) -> Table:
        """Return the table of one column.

        Raises:
            UsageError: if there is no such column.
        """
        if column not in self.columns:
            known = ", ".join(map(str, self.columns))
            raise UsageError(f"there is no column {column}; the columns are {known}")
        cells = {place: cell for place, cell in self.cells.items() if place[1] == column}
        known_rows = {row: one for row, one in self.known.items() if (row, column) in cells}
        return replace(self, columns=[column], cells=cells, known=known_rows)

    def head(self, column: int) -> str:
        """Return what heads a column: ``S=10``, or ``10 calls``."""
        return f"S={column}" if self.by == "steps" else f"{column} calls"

    def row_info(self, row: str) -> RowInfo:
        """Return what stands in a row."""
        return self._row_infos[row]

    @cached_property
    def _row_infos(self) -> dict[str, RowInfo]:
        """What stands in each row, from the first of its cells: found once, as tables may have many rows."""
        found: dict[str, RowInfo] = {}
        for (row, _), cell in self.cells.items():
            found.setdefault(row, cell.record.sampler)
        return found

    @property
    def trial(self) -> Trial:
        """What the table's trials have in common: the fields of `SAME` from the first of them."""
        return self.cells[min(self.cells, key=lambda place: place[1])].record.trial

    def best(self, column: int) -> str | None:
        """Return the row with the best score of a column, bias-corrected where that is possible."""
        return self.leaders(column)[0]

    def leaders(self, column: int) -> tuple[str | None, tuple[str, ...]]:
        """Return the best row of a column and those that cannot be told from it (95%, paired, Holm 1979).

        Where two of the scores cannot be compared, or all of them are `unjudged`, none is the best.
        """
        cells = {row: self.cells[row, column] for row in self.rows if (row, column) in self.cells}
        there = self.scores(column)
        if not there or not_judged(there.values()):
            return None, ()
        first = next(iter(there))

        def pair(row: str, other: str) -> tuple[Score, Score]:
            return shared(cells[row], cells[other])

        try:
            for row in there:
                refuse_mixed(*pair(first, row))
        except UsageError:
            return None, ()
        standing = {row: score for row, score in there.items() if not is_beaten(cells[row])}
        try:
            best, ties = ties_with_best(standing, pair=pair)
        except UsageError:  # scores without jackknife groups have no ties
            sign = -1 if there[first].higher_is_better else 1
            return min(standing, key=lambda row: sign * estimate(standing[row])), ()
        return best, tuple(ties)

    def scores(self, column: int) -> dict[str, Score]:
        """Return the scores of a column by row."""
        cells = {row: self.cells[row, column].score for row in self.rows if (row, column) in self.cells}
        return {row: score for row, score in cells.items() if score is not None}

    def unjudged(self, column: int) -> str:
        """Return why no verdict on a column can be had; empty where it can."""
        there = self.scores(column)
        return not_judged(there.values()) if there else ""

    def series(self, row: str) -> list[tuple[int, Cell]]:
        """Return (steps, cell) of a row's scored cells, steps ascending."""
        cells = [(column, self.cells.get((row, column))) for column in self.columns]
        return [(column, cell) for column, cell in cells if cell is not None and cell.score is not None]


def tables_of(records: Iterable[Record], metric: str | None = None) -> list[Table]:
    """Sort records into tables, each with a title and a slug of its own.

    Equal weights under several names, such as the paths of a file that was moved, are one model with the name
    that comes first. A record without a score stands where its provenance says that the score would have.

    Args:
        records: in any order.
        metric: name of the score to show, of the records that have it; each record's first where None.
    """
    records = list(records)
    names = _models_of(records)
    shown = [(metric or next(iter(record.trial.metrics), ""), record) for record in records]
    known = {
        _sources(record, name): Measure.of(record, record.scores[name])
        for name, record in shown
        if name in record.scores
    }
    floors: dict[object, list[Record]] = {}
    found: dict[tuple[object, ...], list[Record]] = {}
    measures: dict[tuple[object, ...], Measure] = {}
    for name, record in shown:
        if record.kind == "real":
            floors.setdefault(_model(record, names), []).append(record)
        elif name in record.trial.metrics or not name:
            measure = _measure(record, name, known)
            same = [_common(record, field) for field in SAME if field != "model"]
            key = (_model(record, names), *same, name, *asdict(measure).values())
            found.setdefault(key, []).append(record)
            measures[key] = measure
    tables = sorted(found, key=repr)
    return _told_apart(
        [
            _group(found[key], floors.get(key[0], []), str(key[0]), str(key[len(SAME)]), measures[key])
            for key in tables
        ]
    )


def _common(record: Record, name: str) -> object:
    """Return a field of `SAME`; of n the most, which a trial drawn in rounds may not have reached."""
    return record.most if name == "n" else getattr(record.trial, name)


def _models_of(records: Iterable[Record]) -> dict[tuple[str, str], str]:
    """Return the first name of every model, by the hash of its weights and its options."""
    names: dict[tuple[str, str], str] = {}
    for record in records:
        if record.model.weights:
            names.setdefault((record.model.weights, split_spec(record.trial.model)[1]), record.trial.model)
    return names


def _model(record: Record, names: Mapping[tuple[str, str], str]) -> str:
    """Return the name of a record's model; its own where the weights are not known."""
    own = record.trial.model
    return names.get((record.model.weights, split_spec(own)[1]), own)


def _sources(record: Record, metric: str) -> tuple[object, ...]:
    """Return what a record's provenance says of the measure of a score, whether it has the score or not."""
    names = (f"feature space of {metric}", f"reference of {metric}", "images")
    return (metric, *(record.provenance.get(name) for name in names))


def _measure(record: Record, metric: str, known: Mapping[tuple[object, ...], Measure]) -> Measure:
    """Return what a record's score was measured with, or would have been.

    Args:
        record: with the score or without.
        metric: name of the score.
        known: measures of the scores there are, by `_sources`.
    """
    if metric in record.scores:
        return Measure.of(record, record.scores[metric])
    sources = _sources(record, metric)
    _, space, reference, images = sources
    measure = known.get(sources, Measure("", str(space or ""), str(reference or images or ""), ""))
    return replace(measure, weights=record.model.weights)


def _told_apart(tables: list[Table]) -> list[Table]:
    """Add to the slugs and titles that several tables share what tells these apart."""
    trials: dict[str, list[Trial]] = {}
    for table in tables:
        trials.setdefault(table.slug, []).append(table.trial)
    differing = {
        slug: [name for name in SAME if len({getattr(trial, name) for trial in alike}) > 1]
        for slug, alike in trials.items()
    }
    made = []
    for table in tables:
        marks = [_mark(name, getattr(table.trial, name)) for name in differing[table.slug]]
        made.append(replace(table, slug=file_slug("-".join([table.slug, *filter(None, marks)]))))
    return _marked_by_content(made)


def slugs_of(records: Sequence[Record]) -> re.Pattern[str]:
    """Return what matches the slugs of all tables of some records, whichever of these there were then."""
    names = {file_slug(f"{r.trial.model}-{name}") for r in records for name in (*r.trial.metrics, *r.scores)}
    marks = {file_slug(_mark(name, getattr(r.trial, name))) for r in records for name in SAME}
    marks |= {file_slug(r.trial.spacing) for r in records} | {file_slug(f"n{r.most}") for r in records}
    mark = "|".join([*map(re.escape, sorted(marks - {""})), "[0-9a-f]{8}", "[0-9a-f]{12}"])
    return re.compile(f"({'|'.join(map(re.escape, sorted(names)))})(-({mark}))*")


def _marked_by_content(tables: Sequence[Table]) -> list[Table]:
    """Add what a table was measured with to a title and, as a hash, to a slug that others have too."""
    slugs = Counter(table.slug for table in tables)
    values: dict[str, dict[str, set[str]]] = {}
    for table in tables:
        titled = values.setdefault(table.title, {})
        for name, value in _contents(table).items():
            titled.setdefault(name, set()).add(value)
    made = []
    for table in tables:
        slug, own = table.slug, _contents(table)
        if slugs[slug] > 1:
            slug = f"{slug}-{short_hash({**_common_fields(table.trial), **own})[:8]}"
        differing = values[table.title]
        facts = [f"{name} {value}" for name, value in own.items() if value and len(differing[name]) > 1]
        made.append(replace(table, slug=slug, title=", ".join([table.title, *facts])))
    return made


def _contents(table: Table) -> dict[str, str]:
    """Return what a title may lack of what makes a table, by its name in words."""
    measure = table.measure
    return {
        "weights": measure.weights,
        "feature space": measure.space,
        "reference file": str(table.trial.reference or ""),
        "reference hash": measure.reference,
        "quantisation": measure.quantisation,
    }


def _common_fields(trial: Trial) -> dict[str, Any]:
    """Return the fields of `SAME`, without the usual mode: names of files stay as they were."""
    return {name: value for name in SAME if (value := getattr(trial, name)) != EAGER}


def _mark(name: str, value: Any) -> str:
    if isinstance(value, str):
        return Path(value).stem
    return "" if value is None else f"{name}{value}"


def _with_whole_grids(members: Sequence[Record]) -> list[tuple[str, Record]]:
    """Return (spacing of its row, record), a trial of all T time steps in the rows of every other rule."""
    others = sorted({r.trial.spacing for r in members} - {"all"})
    there = {(r.trial.spacing, r.trial.sampler, r.trial.steps) for r in members}
    placed = []
    for record in members:
        trial = record.trial
        if trial.spacing != "all" or not others:
            placed.append((trial.spacing, record))
            continue
        free = [s for s in others if (s, trial.sampler, trial.steps) not in there]
        placed += [(spacing, record) for spacing in free]
    return placed


def _floor(members: list[Record], floors: list[Record], metric: str, measure: Measure) -> Record | None:
    """Return the record of as many real images as the table's n, or of the most there are."""

    def same(floor: Record) -> bool:
        shared = ("seed", "reference")
        apart = any(getattr(floor.trial, name) != getattr(members[0].trial, name) for name in shared)
        if apart or metric not in floor.scores:
            return False
        found = replace(Measure.of(floor, floor.scores[metric]), weights=measure.weights)  # none drew them
        whole = floor.provenance.get(f"reference of {metric}", "") if is_split_off(floor) else ""
        return measure in (found, replace(found, reference=whole))

    most = max(member.trial.n for member in members)
    fitting = [floor for floor in floors if same(floor) and floor.trial.n <= most]
    return max(fitting, key=lambda floor: floor.trial.n, default=None)


def _group(members: list[Record], floors: list[Record], model: str, name: str, measure: Measure) -> Table:
    placed = _with_whole_grids(members)
    known = _rows_of(placed)
    labels = {row: label for label, row in known.items()}
    columns = sorted({r.trial.steps for r in members})
    last_wins = sorted(placed, key=lambda item: (item[1].status == "done", item[1].trial.n))
    cells: dict[tuple[str, int], Cell] = {}
    for spacing, r in last_wins:
        place = labels[Row(r.trial.sampler, spacing)], r.trial.steps
        before = cells[place].by_n if place in cells else {}
        cells[place] = Cell(r, r.scores.get(name), {n: s for n, s in before.items() if n < r.trial.n})
    trial = members[0].trial
    spacings = sorted({r.trial.spacing for r in members})  # records come in the order of their hashes
    facts = [
        _told_n(cell.record.trial.n for cell in cells.values()),
        f"spacing {' and '.join(map(short_spacing, spacings))}",
        f"seed {trial.seed}",
        trial.precision,
        *([f"mode {trial.mode}"] if trial.mode != EAGER else []),
    ]
    facts += [trial.device, *_images_of(members[0])]
    title = f"{model}: {name}, {', '.join(facts)}"
    slug = file_slug(f"{model}-{name}")
    rules = {row.spacing for row in known.values()}
    if len(rules) == 1 and rules != {"uniform"}:
        (rule,) = rules
        many = len(rule) > 40  # a list of times
        slug += f"-{short_hash({'spacing': rule}) if many else rule}"
    floor = _floor(members, floors, name, measure)
    score = floor.scores[name] if floor else None
    return Table(title, slug, name, measure, known, columns, cells, score, floor)


def _told_n(numbers: Iterable[int]) -> str:
    """Return the number of samples of a table's cells, or the least and the greatest."""
    least, *_, most = sorted([*numbers] * 2)
    return f"n={most:,}" if least == most else f"n={least:,} to {most:,}"


def _images_of(record: Record) -> list[str]:
    """Return the name of the images of a table where it is not the model's own choice of samples."""
    trial = record.trial
    if trial.reference:
        return [Path(trial.reference).name]
    return [f"draws from {trial.model}"] if record.kind == "bound" else []


def _rows_of(placed: Iterable[tuple[str, Record]]) -> dict[str, Row]:
    """Return what every row is by its label, in the table's order.

    A row is a rule with its parameters on a time grid, which is told where there are several; so is what
    clips x_0, where rows differ in it. Where two bear one label, the later ones are told in full.
    """
    firsts: dict[Row, Record] = {}
    for spacing, record in placed:
        firsts.setdefault(Row(record.trial.sampler, spacing), record)
    several = len({row.spacing for row in firsts}) > 1
    mixed = len({_clip(record) for record in firsts.values()}) > 1
    found: dict[str, Row] = {}
    for row, record in sorted(firsts.items(), key=lambda item: (row_order(item[1]), item[0].spacing)):
        grid = f" on {short_spacing(row.spacing)}" if several else ""
        label = (_with_clip(record) if mixed else record.sampler.label) + grid
        if label in found:
            label = f"{row.sampler} on {row.spacing}" if several else row.sampler
        found[label] = row
    return found


def _clip(record: Record) -> str:
    return str(record.sampler.parameters.get("clip", "none"))


def _with_clip(record: Record) -> str:
    """Return the label of a row with how it clips x_0, where it does."""
    label, told = record.sampler.label, f"clip {_clip(record)}"
    return label if told in label or _clip(record) == "none" else f"{label} {told}"


def short_spacing(spacing: str) -> str:
    """Return a rule of time grids as labels have it: of many times the ends and their number."""
    if is_learned(spacing):
        return Path(spacing).stem
    count = count_listed(spacing)
    if count < 4:
        return spacing
    kind, _, values = spacing.rpartition(":")
    times = values.split(",")
    return f"{kind}{':' if kind else ''}{times[0]}..{times[-1]} ({count} times)"


def is_split_off(floor: Record) -> bool:
    """Return whether real images are part of the reference, scored against the rest of it."""
    return SPLIT_OFF in floor.provenance


def row_order(record: Record) -> tuple[object, ...]:
    """Return what rows are sorted by: the rule's name, then each parameter by its place among its choices."""
    row = record.sampler
    return row.name, tuple(row.place), row.label


def cost_of(cell: Cell) -> Cost:
    """Return what drawing a cell's samples took; nothing where none were drawn."""
    return cell.record.cost or Cost()


def milliseconds(cell: Cell) -> float:
    """Return the sampling time of one image."""
    return 1000 * cost_of(cell).sampling_seconds / cell.record.trial.n


def calls(cell: Cell) -> float:
    """Return the network calls of one image."""
    return cost_of(cell).calls


def higher_is_better(table: Table) -> bool:
    """Return the direction of a table's score."""
    return any(cell.score is not None and cell.score.higher_is_better for cell in table.cells.values())


def target(table: Table) -> float | None:
    """Return the value that is right for a table's score, None where less or more is better."""
    targets = [cell.score.target for cell in table.cells.values() if cell.score is not None]
    return targets[0] if targets else None


def direction(table: Table) -> str:
    """Return in words what is good in a table; see `direction_of`."""
    scores = [cell.score for cell in table.cells.values() if cell.score is not None]
    return direction_of(scores[0]) if scores else "lower is better"


def direction_of(score: Score) -> str:
    """Return in words what is good: ``lower is better``, ``higher is better``, ``0.5 is right``."""
    if score.target is not None:
        return f"{score.target:g} is right"
    return f"{'higher' if score.higher_is_better else 'lower'} is better"
