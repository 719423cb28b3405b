"""Claims by shape tested on a table, with the error of every difference from the paired jackknife."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd

from bench.diffusion.sampling import get_sampler
from bench.errors import UsageError
from bench.published.claims import CLAIMS, ROWS, Claim, Link, Place, Shape
from bench.records.record import Record
from bench.report.tables.sheets import Sheet
from bench.report.tables.table import Cell, Table, shared, short_spacing
from bench.stats.comparison import Comparison, compare, not_judged, scaled
from bench.stats.score import Score
from bench.stats.sequential import ALPHA

Verdict = Literal["holds", "fails", "undecided", "not judged", "not tested"]


@dataclass(frozen=True)
class ClaimResult:
    """What became of a claim.

    Attributes:
        claim: the statement.
        verdict: ``holds`` where every link does at 5%; ``fails`` where one is reversed at 5% after
            Bonferroni's correction; ``undecided`` otherwise; ``not judged`` where all its scores allow no
            verdict; ``not tested`` where cells are missing.
        p: the p-value of the verdict: the largest of the links' one-sided p-values (the claim is their
            intersection), for ``fails`` the corrected smallest of the reverse.
        links: with their comparisons, weakest first.
        message: why it was not judged, or not tested.
        labels: the labels of the rows, for words.
        spacing: the time grid of the rows, where the table has several.
    """

    claim: Claim
    verdict: Verdict
    p: float | None = None
    links: tuple[tuple[Link, Comparison], ...] = ()
    message: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    spacing: str = ""

    @property
    def text(self) -> str:
        """The statement, and the time grid it was tested on."""
        return f"{self.claim.text} (on {short_spacing(self.spacing)})" if self.spacing else self.claim.text

    @property
    def in_order(self) -> int:
        """Links whose values are in the claimed order, errors aside."""
        return sum(1 for _, comparison in self.links if comparison.z < 0)

    @property
    def weakest(self) -> str:
        """The link that decides, and by how much: less than 0 where it is reversed."""
        if not self.links:
            return self.message
        link, found = self.links[0]
        return f"{link.told(self.labels)} by {-found.difference:.3g} ± {found.se:.2g}"


def find_claims(table: Table, claims: Iterable[Claim] = CLAIMS) -> list[ClaimResult]:
    """Test claims on a table, each at 5%, on every time grid that it has."""
    found, several = list[ClaimResult](), len(table.spacings) > 1
    for spacing, part in table.on_each_grid():
        labels = _labels(part)
        scored = {(row, steps): cell for row, label in labels.items() for steps, cell in part.series(label)}
        scores = {place: cell.score for place, cell in scored.items() if cell.score is not None}
        shape = _shape({place: cell.record for place, cell in scored.items()})
        told = spacing if several else ""

        def pair(place: Place, other: Place, scored: Mapping[Place, Cell] = scored) -> tuple[Score, Score]:
            return shared(scored[place], scored[other])

        judged = [replace(judge(claim, shape, scores, pair), labels=labels, spacing=told) for claim in claims]
        found += [one for one in judged if not several or one.verdict != "not tested"]
    return found


def _labels(table: Table) -> dict[str, str]:
    """Return the label of every row of a table, by the row as claims write it, else by its full text."""
    written: dict[str, str] = {}
    for row in ROWS:
        with suppress(UsageError):  # a rule that is not installed has no cells either
            written[get_sampler(row).spec] = row
    return {written.get(row.sampler, row.sampler): label for label, row in table.known.items()}


def _shape(scored: Mapping[Place, Record]) -> Shape:
    """Return which cells have a score, and the schedule's T."""
    names = {record.model.schedule for record in scored.values()}
    lengths = {int(found[1]) for name in names if (found := re.search(r"\bT=(\d+)", name))}
    T = lengths.pop() if len(lengths) == 1 else None
    # A rule may visit fewer levels than it takes steps: then S = T is not the whole schedule.
    whole = all(r.grid.distinct_levels == T for (_, steps), r in scored.items() if steps == T)
    return Shape(frozenset(scored), T if whole else None)


def judge(
    claim: Claim,
    shape: Shape,
    scores: Mapping[Place, Score],
    pair: Callable[[Place, Place], tuple[Score, Score]] | None = None,
) -> ClaimResult:
    """Test one claim.

    The claim is an intersection of one-sided statements: its p-value is the largest of theirs, and no
    correction is needed (Berger 1982, Technometrics 24(4)). That one of them is reversed is a union: the
    smallest p-value times their number (Bonferroni).

    Args:
        claim: the statement.
        shape: which cells have a score.
        scores: the scores of the cells.
        pair: gives the scores that two cells are compared by where these are others, of the samples that both
            have; None: the cells' own.
    """
    links = claim.links(shape)
    if not links:
        return ClaimResult(claim, "not tested", message=f"needs {claim.needs}")
    if why := not_judged(scores[place] for link in links for place in (link.better, link.worse)):
        return ClaimResult(claim, "not judged", message=f"not judged: every score is {why}")
    try:
        pairs = [
            (link, pair(link.better, link.worse) if pair else (scores[link.better], scores[link.worse]))
            for link in links
        ]
        found = [(link, _compare(link, *scores_of)) for link, scores_of in pairs]
    except UsageError as error:
        return ClaimResult(claim, "not tested", message=str(error))
    found.sort(key=lambda item: _p_better(item[1]), reverse=True)
    p_holds = _p_better(found[0][1])
    p_fails = min(1.0, len(found) * min(1 - _p_better(comparison) for _, comparison in found))
    if p_holds < ALPHA:
        return ClaimResult(claim, "holds", p_holds, tuple(found))
    if p_fails < ALPHA:
        return ClaimResult(claim, "fails", p_fails, tuple(found))
    return ClaimResult(claim, "undecided", p_holds, tuple(found))


def _compare(link: Link, better: Score, worse: Score) -> Comparison:
    """Return better - factor x worse as a comparison that is negative where the link holds."""
    worse = scaled(worse, link.factor)
    if better.target is not None:
        raise UsageError(f"of {better.metric} neither more nor less is better")
    found = compare(better, worse)
    return found if not better.higher_is_better else compare(worse, better)


def _p_better(comparison: Comparison) -> float:
    """Return the one-sided p-value against "better is not better"."""
    return comparison.p / 2 if comparison.difference < 0 else 1 - comparison.p / 2


COLUMNS = ("claim", "verdict", "p", "in order", "weakest link", "source")


def claims_sheet(table: Table, findings: Sequence[ClaimResult]) -> Sheet:
    """Return the claims of one table with their verdicts, those of papers that it cannot test left out."""
    papers = {_paper(found.claim) for found in findings if found.verdict != "not tested"}
    findings = [found for found in findings if not papers or _paper(found.claim) in papers]
    rows = [
        [
            found.text,
            found.verdict,
            "" if found.p is None else _p(found.p),
            f"{found.in_order} of {len(found.links)}" if found.links else "",
            found.weakest,
            found.claim.source[found.claim.source.index("arXiv") :],
        ]
        for found in findings
    ]
    note = (
        "holds: every ordering of the claim at 5%, one-sided, paired jackknife (p: the largest); fails: one"
        " is reversed at 5% after Bonferroni's correction; no correction for the number of claims"
    )
    text = frozenset({"claim", "verdict", "weakest link", "source"})
    return Sheet(f"Claims by shape: {table.title}", COLUMNS, rows, _frame(table, findings), note, text)


def _paper(claim: Claim) -> str:
    """Return the number of the paper that a claim is from."""
    return claim.source[claim.source.index("arXiv:") :][:16]


def _frame(table: Table, findings: Sequence[ClaimResult]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "table": table.title,
                "claim": found.claim.name,
                "text": found.text,
                "verdict": found.verdict,
                "p": found.p,
                "in_order": found.in_order if found.links else None,
                "links": len(found.links),
                "weakest": found.weakest,
                "source": found.claim.source,
            }
            for found in findings
        ]
    )


def _p(p: float) -> str:
    return "<1e-4" if p < 1e-4 else f"{p:.2g}"
