"""The tables of docs/choose.md, made from the committed runs: --write puts them there."""

import sys
from pathlib import Path

from bench.records.store import Store
from bench.report.tables.table import calls, tables_of
from bench.stats.comparison import estimate, ties_with_best

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.generated import DOCS, Generated

REFERENCE = DOCS.parent / "results" / "reference"
FEW = {"digits-fast": (5, 8, 10), "cifar10-small-fast": (5, 8, 10), "exact-digits-fast": (5, 8, 10)}
"""Runs of fast samplers on three time grids, and the budgets of network calls that are told."""
MANY = {"digits": (20, 50, 100, 1000), "cifar10-small": (20, 50, 100), "exact-digits": (20, 50, 100, 1000)}
"""Runs on even time steps, the papers' rows among them."""
HEAD = (
    "| model | calls | best | score | cannot be told from it | DDIM, even times | real images |\n"
    "|---|--:|---|--:|---|--:|--:|"
)


def affordable(table, budget):
    """{row: its score with the most network calls within a budget}, of rows that spend four fifths of it."""
    found = {}
    for (row, _), cell in table.cells.items():
        spent = calls(cell)
        if cell.score is not None and 0.8 * budget <= spent <= budget and spent > found.get(row, (0,))[0]:
            found[row] = spent, cell.score
    return {row: score for row, (_, score) in found.items()}


def told(score, digits):
    return f"{score.value:.{digits}f} ± {score.se:.{digits}f}"


def ranked(table, budget):
    """The best row of a budget, its ties from the best one on, and all scores."""
    scores = affordable(table, budget)
    best, ties = ties_with_best(scores)
    return best, sorted(ties, key=lambda row: estimate(scores[row])), scores


def line(table, budget):
    best, ties, scores = ranked(table, budget)
    ddim = next(scores[row] for row in ("ddim eta=0 on time", "ddim eta=0") if row in scores)
    digits = 2 if table.floor.value > 0.5 else 4 if table.floor.value < 0.05 else 3
    tied = " and ".join([*ties[:1], *([f"{len(ties) - 1} more"] if len(ties) > 1 else [])]) or "none"
    model = next(iter(table.cells.values())).record.trial.model
    cells = [model, str(budget), best, told(scores[best], digits), tied]
    return f"| {' | '.join([*cells, told(ddim, digits), told(table.floor, digits)])} |"


def table_of(run):
    (table,) = tables_of(Store(REFERENCE / run).read()[0])
    return table


def rows(runs):
    return (
        "\n".join([HEAD, *(line(table_of(run), budget) for run, few in runs.items() for budget in few)])
        + "\n"
    )


TABLES = (
    Generated(DOCS / "choose.md", "few calls", lambda: rows(FEW)),
    Generated(DOCS / "choose.md", "many calls", lambda: rows(MANY)),
)

if __name__ == "__main__":
    for table in TABLES:
        table.main()
