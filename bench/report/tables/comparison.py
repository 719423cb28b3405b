"""Ours beside the published: every cell of a preset's table with difference, z and a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from bench.device.modes import EAGER
from bench.diffusion.sampling import get_sampler
from bench.published.presets import Preset, PresetRow, get_preset, tolerance
from bench.published.values import SOURCES, PublishedValue
from bench.records.record import Record
from bench.records.store import Store
from bench.report.tables.sheets import Sheet
from bench.stats.score import Score

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

Verdict = Literal["reproduced", "differs", "undecided", "not comparable", "not run"]


CRITICAL = 1.96
"""Standard errors beyond which a difference is no accident, at 95%."""


LEAST: Mapping[int, tuple[float, float]] = {1: (0.0, 1.0), 3: (-0.8462844, 0.5594672)}
"""Mean and variance of the least of so many standard normal values; of three -3 / (2 sqrt(pi)) and
1 + sqrt(3) / (2 pi) - 9 / (4 pi). Source: David & Nagaraja 2003, Order Statistics, sec. 3.2."""


COLUMNS = ("sampler", "S", "ours", "published", "difference", "z", "verdict", "because")
"""The last one stands only where a cell has a reason of its own to give."""


@dataclass(frozen=True)
class PublishedCell:
    """One cell of a published table beside ours.

    Attributes:
        sampler: label of the row.
        column: the number of steps, or of network calls.
        printed: the published number, None where the source has no such cell.
        record: ours, None where there is none.
        score: its score in the table's metric, or its first where that is missing.
        reasons: why the two cannot be compared; empty where they can.
    """

    sampler: str
    column: int
    printed: PublishedValue | None
    record: Record | None
    score: Score | None
    reasons: tuple[str, ...]

    @property
    def comparable(self) -> bool:
        """Whether a difference means anything."""
        return self.printed is not None and self.score is not None and not self.reasons

    @property
    def difference(self) -> float | None:
        """Ours less the published value; of the least of several runs, less what that is expected to be."""
        if self.printed is None or self.score is None or self.reasons:
            return None
        lower = LEAST[self.printed.best_of][0] * self.score.se if self.printed.best_of > 1 else 0.0
        return self.score.value + lower - self.printed.value

    @property
    def se(self) -> float | None:
        """Standard error of the difference, sqrt(2) ours where the published value is one run of as many."""
        if self.score is None:
            return None
        _, variance = LEAST[self.printed.best_of if self.printed else 1]
        return math.sqrt(1 + variance) * self.score.se

    @property
    def z(self) -> float | None:
        """The difference in standard errors."""
        if self.difference is None or not self.se or not math.isfinite(self.se):
            return None
        return self.difference / self.se

    @property
    def verdict(self) -> Verdict:
        """``reproduced`` within what independent reruns reach; ``differs`` beyond it by more than chance."""
        if self.score is None:
            return "not run"
        if self.difference is None or self.printed is None:
            return "not comparable"
        beyond = abs(self.difference) - tolerance(self.printed.value)
        if beyond <= 0:
            return "reproduced"
        known = self.se is not None and math.isfinite(self.se)
        return "differs" if known and beyond > CRITICAL * (self.se or 0.0) else "undecided"

    @property
    def because(self) -> str:
        """The reason for a verdict that gives no number."""
        if self.score is None:
            if self.record is not None and self.record.status != "done":
                return f"{self.record.status}: {self.record.message}"
            return ""
        return "; ".join(self.reasons or (() if self.printed else ("no published value",)))


@dataclass(frozen=True)
class PublishedTable:
    """A preset's table: every published cell beside ours.

    Attributes:
        preset: the protocol.
        cells: the cells by row, then by number of steps.
    """

    preset: Preset
    cells: tuple[PublishedCell, ...]

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each verdict was given, those not given left out."""
        found: dict[str, int] = {}
        for cell in self.cells:
            found[cell.verdict] = found.get(cell.verdict, 0) + 1
        return found

    @property
    def title(self) -> str:
        """What is compared with what."""
        return f"{self.preset.summary.partition(':')[0]}: ours and {SOURCES[self.preset.source].authors}"

    @property
    def shared_reasons(self) -> tuple[str, ...]:
        """Why no cell at all can be compared, where all share the reason."""
        refused = [cell.reasons for cell in self.cells if cell.score is not None]
        first = refused[0] if refused else ()
        return tuple(reason for reason in first if all(reason in reasons for reasons in refused))

    @property
    def comparable(self) -> bool:
        """Whether any cell can be compared."""
        return any(cell.comparable for cell in self.cells)

    def frame(self) -> pd.DataFrame:
        """Return one row a cell, numbers unrounded."""
        by = "calls" if self.preset.calls else "steps"
        return pd.DataFrame([_row(cell, by) for cell in self.cells]).astype({"n": "Int64"})

    def sheet(self) -> Sheet:
        """Return the comparison as a table."""
        counts = ", ".join(f"{count} {verdict}" for verdict, count in self.counts.items())
        shared = self.shared_reasons
        of_table = f", table {self.preset.table}" if self.preset.table else ""
        why = f" Not comparable: {'; '.join(shared)}." if shared else ""
        note = (
            f"{counts}.{why} Published: {self.preset.source}{of_table}."
            " reproduced: within 0.1 of a published FID below 40, within 1% above, as an independent rerun"
            " (arXiv:2201.06503, table 9) was; differs: further off by more than 1.96 standard errors of the"
            " difference, sqrt(2) ours."
        )
        rows = [_texts(cell, shared) for cell in self.cells]
        width = len(COLUMNS) if any(row[-1] for row in rows) else len(COLUMNS) - 1
        text = frozenset({"sampler", "verdict", "because"})
        columns = ["calls" if name == "S" and self.preset.calls else name for name in COLUMNS[:width]]
        return Sheet(self.title, columns, [row[:width] for row in rows], self.frame(), note, text)

    def styler(self) -> Styler:
        """Return samplers by steps for a notebook: ours over published, coloured by verdict."""
        return _styler(self)


def published_table(preset: str, folder: str | Path = "results") -> PublishedTable:
    """Return a preset's table beside the records of a results folder, for a notebook.

    ``published_table("ddim-table1-cifar10").styler()`` colours every cell by its verdict.

    Args:
        preset: its name.
        folder: what ``--results`` was given.

    Raises:
        UnknownNameError: if there is no such preset.
    """
    return compare_published(get_preset(preset), Store(Path(folder)).read()[0])


def compare_published(preset: Preset, records: Iterable[Record]) -> PublishedTable:
    """Set every cell of a preset's table beside the record that fits it best.

    Args:
        preset: the protocol.
        records: the records of any sweeps: the one with the fewest reasons against it is taken.
    """
    by_place: dict[tuple[str, int], list[Record]] = {}
    for known in records:
        if known.kind != "real":
            place = known.trial.sampler, _column(preset, known)
            by_place.setdefault(place, []).append(known)
    published = preset.values()
    cells = []
    for row in preset.rows:
        sampler = get_sampler(row.sampler)
        for column in row.columns or preset.columns:
            of_column = (f for f in published if (f.nfe if preset.calls else f.steps) == column)
            printed = next((f for f in of_column if _stands_in(row, f)), None)
            candidates = by_place.get((sampler.spec, column), [])
            if preset.calls and printed is None and not candidates:
                continue  # two calls a step do not make an odd number
            # A failure is worth telling only where its score would have counted.
            candidates = [r for r in candidates if r.status == "done" or not incomparable(preset, r, row)]
            ranked = sorted(candidates, key=lambda r: _rank(preset, r, row))
            record = ranked[0] if ranked else None
            reasons = incomparable(preset, record, row) if record is not None else ()
            score = _score(preset, record)
            cells.append(PublishedCell(sampler.label, column, printed, record, score, reasons))
    return PublishedTable(preset, tuple(cells))


def _stands_in(row: PresetRow, figure: PublishedValue) -> bool:
    """Return whether a published value stands in a row: by its name there, or by rule and parameters."""
    if row.name:
        return figure.sampler == row.name
    rule = get_sampler(row.sampler)
    return figure.is_of(rule.name, rule.parameters)


def _column(preset: Preset, record: Record) -> int:
    """Return where a record stands in a preset's table: at its network calls, or its number of steps."""
    if not preset.calls:
        return record.trial.steps
    return round(record.cost.calls) if record.cost else 0


def incomparable(preset: Preset, record: Record, row: PresetRow) -> tuple[str, ...]:
    """Return why a record's score cannot stand beside the published printed; empty where it can."""
    trial, score, reasons = record.trial, _score(preset, record), []
    metric, steps = preset.metrics[0], int(trial.steps)
    if not preset.is_model(trial.model):
        reasons.append(f"other model: {trial.model}, not {preset.model}")
    if score is not None and score.metric != metric:
        reasons.append(f"other metric: {score.metric}, not {metric}")
    if trial.n != preset.n:
        reasons.append(f"other n: {trial.n:,}, not {preset.n:,}")
    spacing = preset.spacing_of(steps, row)
    if trial.spacing != spacing:
        reasons.append(f"other spacing: {trial.spacing}, not {spacing}")
    if trial.precision != "float32":
        reasons.append(f"other precision: {trial.precision}, not float32")
    if trial.mode != EAGER:
        reasons.append(f"other mode: {trial.mode}, not {EAGER}")
    if score is not None:
        flags = [flag for flag in score.flags if flag in ("other-weights", "incomplete", "rank-deficient")]
        reasons += [f"the score is flagged {flag}" for flag in flags]
    return tuple(reasons)


def _rank(preset: Preset, record: Record, row: PresetRow) -> tuple[bool, int, str]:
    return (record.status != "done", len(incomparable(preset, record, row)), record.key)


def _score(preset: Preset, record: Record | None) -> Score | None:
    if record is None or not record.scores:
        return None
    name = preset.metrics[0]
    if name in record.trial.metrics:  # no other score stands in for one that failed
        return record.scores.get(name)
    return next(iter(record.scores.values()))


def _row(cell: PublishedCell, by: str) -> dict[str, object]:
    printed, score, record = cell.printed, cell.score, cell.record
    return {
        "sampler": cell.sampler,
        by: cell.column,
        "metric": score.metric if score else None,
        "ours": score.value if score else None,
        "ours_se": score.se if score else None,
        "published": printed.value if printed else None,
        "difference": cell.difference,
        "z": cell.z,
        "tolerance": tolerance(printed.value) if printed else None,
        "verdict": cell.verdict,
        "because": cell.because,
        "published_source": printed.where if printed else None,
        "model": record.trial.model if record else None,
        "n": record.trial.n if record else None,
        "spacing": record.trial.spacing if record else None,
        "key": record.key if record else None,
    }


def _texts(cell: PublishedCell, shared: Sequence[str] = ()) -> list[str]:
    score, printed = cell.score, cell.printed
    own = [reason for reason in cell.reasons if reason not in shared]
    ours = f"{shown(score.value)} ± {score.se:.2g}" if score else ""
    return [
        cell.sampler,
        str(cell.column),
        ours,
        f"{printed.value:.2f}" if printed else "",
        f"{cell.difference:+.2f}" if cell.difference is not None else "",
        f"{cell.z:+.1f}" if cell.z is not None else "",
        cell.verdict,
        "; ".join(own) if cell.score and cell.reasons else cell.because,
    ]


def shown(value: float) -> str:
    """Return a score as the papers print it, with two decimals, or more where that hides it."""
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4g}"


COLOURS: Mapping[str, str] = {
    "reproduced": "background-color: #cfe8d5; color: #10301a",
    "differs": "background-color: #f6cfc9; color: #45120a",
    "undecided": "background-color: #f7e6b8; color: #3d2f00",
    "not comparable": "background-color: #e4e4e8; color: #2a2a30",
    "not run": "",
}
"""The Styler's colours: text on its background has a contrast of at least 9 to 1."""


def _styler(table: PublishedTable) -> Styler:
    text: dict[int, dict[str, str]] = {}
    colour: dict[int, dict[str, str]] = {}
    for cell in table.cells:
        ours, printed = _texts(cell)[2], cell.printed
        published = f" ({printed.value:.2f})" if printed else ""
        text.setdefault(cell.column, {})[cell.sampler] = f"{ours or '–'}{published}"
        colour.setdefault(cell.column, {})[cell.sampler] = COLOURS[cell.verdict]
    frame = pd.DataFrame(text).rename(columns=lambda steps: f"S={steps}")
    styles = pd.DataFrame(colour).rename(columns=lambda steps: f"S={steps}")
    caption = f"{table.title}; ours ± one standard error (published)"
    return frame.style.apply(lambda _: styles, axis=None).set_caption(caption).set_uuid("published")
