"""What the leaderboard's page shows: plain values for a template, nothing of its looks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.errors import one_line
from bench.records.record import Record
from bench.report.page.details import command_of, safe
from bench.report.site.boards import CALLS, TIME, Board, Line, machine_of
from bench.report.site.sources import Source
from bench.report.tables.scores import flag_notes
from bench.report.tables.summary import Best, listed, plus_minus, sentences, short, some
from bench.report.tables.table import direction
from bench.stats.comparison import corrected, not_judged

BUDGETS = (5, 10, 20, 50)
"""Network calls that the overview tells the best of."""

TIES = 3
"""Names told of those that cannot be told from a best."""


def site_page(sources: Sequence[Source], boards: Sequence[Board], title: str) -> dict[str, Any]:
    """Return everything that the leaderboard's template shows.

    Args:
        sources: the results folders, whose records lie in ``records/NAME`` beside the page.
        boards: what their records make.
        title: heads the page.
    """
    homes = {(machine_of(r), r.key): source.name for source in sources for r in source.records}
    shown = [_board(board, place, homes) for place, board in enumerate(boards)]
    return {
        "title": title,
        "subtitle": _subtitle(sources, boards),
        "boards": shown,
        "budgets": BUDGETS,
        "overview": _overview(boards),
        "models": _names(board["model"] for board in shown),
        "scores": _names(board["score"] for board in shown),
        "machines": _names(line["machine"] for board in shown for line in board["lines"]),
        "sources": [_source(source) for source in sources],
        "unseen": [source.name for source in sources if not source.seen],
    }


def _names(found: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(found))


def _subtitle(sources: Sequence[Source], boards: Sequence[Board]) -> str:
    lines = {(line.machine, line.record.key): line for board in boards for line in board.lines}
    rules = {line.record.sampler.label for line in lines.values()}
    machines = sorted({line.machine for line in lines.values()})
    folders = f"{len(sources)} results folder{'s' * (len(sources) != 1)}"
    return f"{len(lines):,} scored trials of {len(rules)} samplers from {folders}, on {listed(machines)}"


def _board(board: Board, place: int, homes: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    table = board.table
    score = board.lines[0].score
    return {
        "id": f"b{place}",
        "model": short_model(table.trial.model),
        "score": table.metric,
        "title": table.title,
        "direction": direction(table),
        "right": "" if score.target is None else score.target,
        "higher": score.higher_is_better,
        "summary": [
            {"machine": machine if len(board.tables) > 1 else "", "sentences": sentences(one, ())}
            for machine, one in board.tables.items()
        ],
        "bests": [
            {
                "machine": machine if len(board.tables) > 1 else "",
                "rows": [
                    {
                        "head": best.head.replace("S=", ""),
                        "row": best.row,
                        "score": plus_minus(best.score),
                        "milliseconds": short(best.milliseconds),
                        "ties": some(best.ties, TIES),
                    }
                    for best in bests
                ],
            }
            for machine, bests in board.bests.items()
            if bests
        ],
        "floor": None if table.floor is None else plus_minus(table.floor),
        "machines": _names(line.machine for line in board.lines),
        "lines": [_line(line, homes) for line in board.lines],
        "several_n": len({line.score.n for line in board.lines}) > 1,
        "notes": [note for one in board.tables.values() for note in flag_notes(one)],
    }


def _overview(boards: Sequence[Board]) -> list[dict[str, Any]]:
    """Return a row for every model on every machine: the best of some budgets by the score that judges it."""
    by_model: dict[str, list[tuple[int, Board]]] = {}
    for place, board in enumerate(boards):
        by_model.setdefault(board.table.trial.model, []).append((place, board))
    return [
        {
            "id": f"b{mine[0][0]}",
            "model": short_model(model),
            "score": mine[0][1].table.metric,
            "direction": direction(mine[0][1].table),
            "machine": machine,
            "within": [_within(mine[0][1].bests[machine], budget) for budget in BUDGETS],
            "best": _best_of_all(mine[0][1], machine),
            "floor": "" if table.floor is None else plus_minus(table.floor),
            "others": [{"id": f"b{place}", "score": board.table.metric} for place, board in mine[1:]],
        }
        for model, mine in by_model.items()
        for machine, table in mine[0][1].tables.items()
    ]


def _within(bests: Sequence[Best], budget: int) -> dict[str, Any] | None:
    """Return the best of a column of network calls; None where there is no such column."""
    found = next((best for best in bests if best.column == budget), None)
    if found is None:
        return None
    return {"label": found.row, "score": plus_minus(found.score), "ties": len(found.ties)}


def _best_of_all(board: Board, machine: str) -> dict[str, str]:
    """Return the best of those that lead their columns, or why there is none."""
    mine = [line for line in board.lines if line.machine == machine]  # the best first
    line = next((line for line in mine if line.mark == "best"), None)
    if line is None:
        return {"score": "not judged", "label": not_judged(line.score for line in mine), "calls": ""}
    spent = line.record.cost.calls if line.record.cost else 0
    return {
        "label": line.label,
        "score": plus_minus(line.score),
        "calls": f"{spent:g} call{'s' * (spent != 1)}" if spent else "",
    }


def short_model(model: str) -> str:
    """Return what ``--model`` was given as a heading: of a path the file."""
    return Path(model).name if "/" in model else model


def _line(line: Line, homes: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    record, score = line.record, line.score
    cost = record.cost
    seconds = cost.sampling_seconds if cost else 0.0
    return {
        "label": line.label,
        "steps": record.trial.steps,
        "calls": _number(cost.calls if cost else None),
        "latency": _number(line.latency),
        "milliseconds": _number(1000 * seconds / record.trial.n if seconds else None),
        "value": score.value,
        "se": score.se if math.isfinite(score.se) else "",
        "text": plus_minus(score),
        "corrected": _number(corrected(score)),
        "n": score.n,
        "machine": line.machine,
        "mark": line.mark or "",
        "fronts": list(line.fronts),
        "flags": list(score.flags),
        "href": record_path(homes[line.machine, record.key], record.key),
        "command": _command(record),
    }


def record_path(name: str, key: str) -> str:
    """Return where a record lies beside the page, as a link."""
    return f"records/{quote(name)}/{safe(key)}.json"


def _number(value: float | None) -> dict[str, Any]:
    """Return a number for sorting with its text, both empty where there is none."""
    if value is None or not math.isfinite(value) or not value:
        return {"value": "", "text": ""}
    return {"value": value, "text": short(value)}


def _source(source: Source) -> dict[str, Any]:
    commits = sorted({r.environment.commit[:12] for r in source.records if r.environment.commit})
    days = sorted(r.environment.finished[:10] for r in source.records if r.environment.finished)
    return {
        "name": source.name,
        "records": len(source.records),
        "machines": sorted({machine_of(record) for record in source.records}),
        "commits": some(commits, TIES),
        "days": " to ".join(dict.fromkeys([*days[:1], *days[-1:]])),
        "files": source.checked.files,
        "digest": source.digest,
        "seen": source.seen,
        "seed": source.seed,
        "redone": [one_line(str(one)) for one in source.redone or ()],
        "failed": sum(record.status != "done" for record in source.records),
    }


COLUMNS: Mapping[str, Callable[[Board, Line], Any]] = {
    "model": lambda board, line: board.table.trial.model,
    "score": lambda board, line: board.table.metric,
    "direction": lambda board, line: direction(board.table),
    "sampler": lambda board, line: line.record.trial.sampler,
    "label": lambda board, line: line.label,
    "spacing": lambda board, line: line.record.trial.spacing,
    "steps": lambda board, line: line.record.trial.steps,
    "n": lambda board, line: line.score.n,
    "value": lambda board, line: line.score.value,
    "se": lambda board, line: line.score.se,
    "debiased": lambda board, line: line.score.debiased,
    "calls": lambda board, line: line.record.cost.calls if line.record.cost else None,
    "latency_in_calls": lambda board, line: line.latency,
    "seconds_an_image": lambda board, line: _seconds(line),
    "machine": lambda board, line: line.machine,
    "best_or_tie": lambda board, line: line.mark or "",
    "pareto_calls": lambda board, line: CALLS in line.fronts,
    "pareto_time": lambda board, line: TIME in line.fronts,
    "key": lambda board, line: line.record.key,
    "command": lambda board, line: _command(line.record),
}
"""Columns of ``leaderboard.csv``, unrounded, each from a board and one of its lines."""


def _command(record: Record) -> str:
    """Return the command that makes a trial alone; of images that were given the one that scored them."""
    return record.environment.command if record.given else command_of(record)


def _seconds(line: Line) -> float | None:
    cost = line.record.cost
    return cost.sampling_seconds / line.record.trial.n if cost else None
