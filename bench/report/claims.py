"""Claims by shape: the orderings a paper's table shows, each tested on ours.

A model that is not the paper's cannot reproduce its numbers, but it can show its shape. A claim is a set of
links, each "this cell scores better than that one"; it holds if every link does, with the error of the
difference from the paired jackknife.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from bench.errors import UsageError
from bench.metrics.base import Score
from bench.report.groups import Group
from bench.report.sheets import Sheet
from bench.stats import Comparison, compare

Verdict = Literal["holds", "fails", "undecided", "not tested"]
LEVEL = 0.05

Place = tuple[str, int]
"""Row and number of steps of a cell."""

ETAS = ("ddim eta=0", "ddim eta=0.2", "ddim eta=0.5", "ddim eta=1")
SIGMA_HAT = "ddpm fixedlarge"
DDIM = "Song, Meng & Ermon 2021, arXiv:2010.02502"
IDDPM = "Nichol & Dhariwal 2021, arXiv:2102.09672"


@dataclass(frozen=True)
class Link:
    """One ordering: ``better`` scores better than ``factor`` times ``worse``."""

    better: Place
    worse: Place
    factor: float = 1.0

    def __str__(self) -> str:
        times = f"{self.factor:g} x " if self.factor != 1 else ""
        return f"{_place(self.better)} better than {times}{_place(self.worse)}"


@dataclass(frozen=True)
class Shape:
    """Which cells a table has: what a claim is resolved against.

    Attributes:
        places: (row, steps) of every cell with a score.
        T: number of time steps of the schedule, None where it is not known.
    """

    places: frozenset[Place]
    T: int | None

    def steps(self, *rows: str, at_most: int | None = None) -> list[int]:
        """Return the numbers of steps at which all the rows have a score, ascending."""
        every = {steps for _, steps in self.places if at_most is None or steps <= at_most}
        return sorted(s for s in every if all((row, s) in self.places for row in rows))


@dataclass(frozen=True)
class Claim:
    """A named statement about the shape of a table.

    Attributes:
        name: for the command line and for reading.
        text: the statement.
        source: where it is to be seen.
        links: Shape -> the orderings it stands for; none where the table lacks the cells.
        needs: what the table must have, in words.
    """

    name: str
    text: str
    source: str
    links: Callable[[Shape], Sequence[Link]]
    needs: str


@dataclass(frozen=True)
class Finding:
    """What became of a claim.

    Attributes:
        claim: the statement.
        verdict: ``holds`` where every link does at 5%; ``fails`` where one is reversed at 5% after
            Bonferroni's correction; ``undecided`` otherwise; ``not tested`` where cells are missing.
        p: of the verdict: the largest of the links' one-sided p-values (the claim is their intersection), for
            ``fails`` the corrected smallest of the reverse.
        links: with their comparisons, weakest first.
        message: why it was not tested.
    """

    claim: Claim
    verdict: Verdict
    p: float | None = None
    links: tuple[tuple[Link, Comparison], ...] = ()
    message: str = ""

    @property
    def in_order(self) -> int:
        """Links whose values are in the claimed order, errors aside."""
        return sum(1 for _, comparison in self.links if comparison.z < 0)

    @property
    def weakest(self) -> str:
        """The link that decides, with its difference."""
        if not self.links:
            return self.message
        link, found = self.links[0]
        return f"{link}: {found.difference:+.3g} ± {found.se:.2g}"


def _increasing(rows: Sequence[str], at_most: int) -> Callable[[Shape], list[Link]]:
    """Each row better than the next, at every S up to a limit."""
    return lambda shape: [
        Link((a, s), (b, s)) for s in shape.steps(*rows, at_most=at_most) for a, b in itertools.pairwise(rows)
    ]


def _last(row: str, others: Sequence[str], at_most: int) -> Callable[[Shape], list[Link]]:
    """Every other row better than this one, at every S up to a limit."""
    return lambda shape: [
        Link((other, s), (row, s)) for s in shape.steps(row, *others, at_most=at_most) for other in others
    ]


def _first(row: str, others: Sequence[str], at_most: int) -> Callable[[Shape], list[Link]]:
    """One row better than every other, at every S up to a limit."""
    return lambda shape: [
        Link((row, s), (other, s)) for s in shape.steps(row, *others, at_most=at_most) for other in others
    ]


def _first_at_end(row: str, others: Sequence[str]) -> Callable[[Shape], list[Link]]:
    """One row better than every other at S=T."""

    def links(shape: Shape) -> list[Link]:
        there = shape.T is not None and shape.T in shape.steps(row, *others)
        return [Link((row, shape.T), (other, shape.T)) for other in others] if there and shape.T else []

    return links


def _falling(row: str) -> Callable[[Shape], list[Link]]:
    """Each number of steps better than the one before."""
    return lambda shape: [Link((row, b), (row, a)) for a, b in itertools.pairwise(shape.steps(row))]


def _within(row: str, steps: int, factor: float) -> Callable[[Shape], list[Link]]:
    """At S no more than ``factor`` times the score at S=T."""

    def links(shape: Shape) -> list[Link]:
        there = shape.T is not None and {steps, shape.T} <= set(shape.steps(row)) and steps < shape.T
        return [Link((row, steps), (row, shape.T), factor)] if there and shape.T else []

    return links


def _with_half_the_steps(row: str, other: str) -> Callable[[Shape], list[Link]]:
    """One row at S better than the other at 2 S, up to 2 S = 100."""
    return lambda shape: [
        Link((row, s), (other, 2 * s)) for s in shape.steps(row, at_most=50) if (other, 2 * s) in shape.places
    ]


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "eta-order-10",
        "at S=10 the score worsens as eta grows",
        f"{DDIM}, table 1",
        _increasing(ETAS, 10),
        "ddim at eta 0, 0.2, 0.5 and 1 with S=10",
    ),
    Claim(
        "eta-order",
        "up to S=100 the score worsens as eta grows",
        f"{DDIM}, table 1",
        _increasing(ETAS, 100),
        "ddim at eta 0, 0.2, 0.5 and 1 with S up to 100",
    ),
    Claim(
        "sigma-hat-worst",
        "sigma-hat (ddpm fixedlarge) is worst at S<=50",
        f"{DDIM}, table 1",
        _last(SIGMA_HAT, ETAS, 50),
        "ddpm fixedlarge and ddim at eta 0, 0.2, 0.5 and 1 with S up to 50",
    ),
    Claim(
        "sigma-hat-best",
        "sigma-hat (ddpm fixedlarge) is best at S=T",
        f"{DDIM}, table 1",
        _first_at_end(SIGMA_HAT, ETAS),
        "ddpm fixedlarge and ddim at eta 0, 0.2, 0.5 and 1 with S=T",
    ),
    Claim(
        "eta-0-best",
        "eta=0 is best at S<=100",
        f"{DDIM}, table 1",
        _first(ETAS[0], (*ETAS[1:], SIGMA_HAT), 100),
        "ddpm fixedlarge and ddim at eta 0, 0.2, 0.5 and 1 with S up to 100",
    ),
    Claim(
        "eta-0-improves",
        "eta=0 improves with every larger S",
        f"{DDIM}, table 1",
        _falling(ETAS[0]),
        "ddim eta=0 at two or more S",
    ),
    Claim(
        "eta-0-half-steps",
        "eta=0 beats eta=1 that takes twice its steps, up to 50 against 100",
        f"{DDIM}, table 1",
        _with_half_the_steps(ETAS[0], ETAS[3]),
        "ddim eta=0 at S and eta=1 at 2 S, as in 10 and 20",
    ),
    Claim(
        "eta-0-near-limit",
        "eta=0 at S=50 is within 20% of its score at S=T",
        f"{DDIM}, table 1, CIFAR-10",
        _within(ETAS[0], 50, 1.2),
        "ddim eta=0 at S=50 and S=T",
    ),
    Claim(
        "learned-best-few",
        "a learned variance beats both fixed ones at S<=100",
        f"{IDDPM}, section 4 and figure 8",
        _first("ddpm learned", ("ddpm fixedsmall", SIGMA_HAT), 100),
        "ddpm learned, fixedsmall and fixedlarge with S up to 100",
    ),
)
"""What the papers' tables show, in words and links."""


def find_claims(table: Group, claims: Iterable[Claim] = CLAIMS) -> list[Finding]:
    """Test claims on a table, each at 5%."""
    shape = shape_of(table)
    scores = {place: cell.score for place, cell in table.cells.items() if cell.score is not None}
    return [judge(claim, shape, scores) for claim in claims]


def shape_of(table: Group) -> Shape:
    """Return which cells of a table have a score, and the schedule's T."""
    scored = {place: cell.record for place, cell in table.cells.items() if cell.score is not None}
    names = {str(record.model.get("schedule", "")) for record in scored.values()}
    lengths = {int(found[1]) for name in names if (found := re.search(r"\bT=(\d+)", name))}
    T = lengths.pop() if len(lengths) == 1 else None
    # A rule may visit fewer levels than it takes steps: then S = T is not the whole schedule.
    whole = all(r.grid.get("distinct_levels") == T for (_, steps), r in scored.items() if steps == T)
    return Shape(frozenset(scored), T if whole else None)


def judge(claim: Claim, shape: Shape, scores: Mapping[Place, Score]) -> Finding:
    """Test one claim.

    The claim is an intersection of one-sided statements: its p-value is the largest of theirs, and no
    correction is needed (Berger 1982, Technometrics 24(4)). That one of them is reversed is a union: the
    smallest p-value times their number (Bonferroni).
    """
    links = claim.links(shape)
    if not links:
        return Finding(claim, "not tested", message=f"needs {claim.needs}")
    try:
        found = [(link, _compare(link, scores)) for link in links]
    except UsageError as error:
        return Finding(claim, "not tested", message=str(error))
    found.sort(key=lambda item: _p_better(item[1]), reverse=True)
    p_holds = _p_better(found[0][1])
    p_fails = min(1.0, len(found) * min(1 - _p_better(comparison) for _, comparison in found))
    if p_holds < LEVEL:
        return Finding(claim, "holds", p_holds, tuple(found))
    if p_fails < LEVEL:
        return Finding(claim, "fails", p_fails, tuple(found))
    return Finding(claim, "undecided", p_holds, tuple(found))


def _compare(link: Link, scores: Mapping[Place, Score]) -> Comparison:
    """Return better - factor x worse as a comparison that is negative where the link holds."""
    better, worse = scores[link.better], _scaled(scores[link.worse], link.factor)
    found = compare(better, worse)
    return found if not better.higher_is_better else compare(worse, better)


def _scaled(score: Score, factor: float) -> Score:
    """Return a score times a factor: x% worse means larger where lower is better, and smaller elsewhere."""
    if factor == 1:
        return score
    by = 1 / factor if score.higher_is_better else factor
    left = tuple(by * value for value in score.leave_one_out)
    return replace(
        score, value=by * score.value, debiased=by * score.debiased, se=by * score.se, leave_one_out=left
    )


def _p_better(comparison: Comparison) -> float:
    """Return the one-sided p-value against "better is not better"."""
    return comparison.p / 2 if comparison.difference < 0 else 1 - comparison.p / 2


COLUMNS = ("claim", "verdict", "p", "in order", "weakest link", "source")


def claims_sheet(table: Group, findings: Sequence[Finding]) -> Sheet:
    """Return the claims of one table with their verdicts."""
    rows = [
        [
            found.claim.text,
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


def _frame(table: Group, findings: Sequence[Finding]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "table": table.title,
                "claim": found.claim.name,
                "text": found.claim.text,
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


def _place(place: Place) -> str:
    return f"{place[0]} S={place[1]}"


def _p(p: float) -> str:
    return "<1e-4" if p < 1e-4 else f"{p:.2g}"
