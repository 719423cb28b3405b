"""Claims by shape: the orderings a paper's table shows, as data.

A model that is not the paper's cannot reproduce its numbers, but it can show its shape. A claim is a set of
links, each "this cell scores better than that one"; `bench.report.tables.findings` tests them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Place = tuple[str, int]
"""Row and number of steps of a cell; a row is written as `get_sampler` reads it."""


ETAS = ("ddim:eta=0", "ddim:eta=0.2", "ddim:eta=0.5", "ddim:eta=1")
SMALL, SIGMA_HAT, LEARNED = (f"ddpm:variance={name}" for name in ("fixedsmall", "fixedlarge", "learned"))

MULTISTEP = ("dpm-solver", "dpmpp-2m", "unipc", "deis:order=3")
"""Multistep solvers of second order and more, one of each family."""


ROWS = (*ETAS, SMALL, SIGMA_HAT, LEARNED, *MULTISTEP, "dpmpp-3m", "dpmpp-2s", "heun")
"""Every row that a claim speaks of."""


DDIM = "Song, Meng & Ermon 2021, arXiv:2010.02502"


IDDPM = "Nichol & Dhariwal 2021, arXiv:2102.09672"


DPM_SOLVER = "Lu et al. 2022, arXiv:2206.00927"


DPM_SOLVER_PP = "Lu et al. 2022, arXiv:2211.01095"


UNIPC = "Zhao et al. 2023, arXiv:2302.04867"


@dataclass(frozen=True)
class Link:
    """One ordering: ``better`` scores better than ``factor`` times ``worse``."""

    better: Place
    worse: Place
    factor: float = 1.0

    def told(self, labels: Mapping[str, str]) -> str:
        """Return the ordering in words, each row under its label where it has one."""
        (row, steps), (other, others) = self.better, self.worse
        row, other = labels.get(row, row), labels.get(other, other)
        if steps == others and self.factor == 1:
            return f"{row} better than {other} at S={steps}"
        times = f"{self.factor:g} x " if self.factor != 1 else ""
        return f"{row} at S={steps} better than {times}{other} at S={others}"


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


def _each_first(rows: Sequence[str], other: str, steps: range) -> Callable[[Shape], list[Link]]:
    """Each of some rows that are there better than another, at every S of a range."""
    return lambda shape: [
        Link((row, s), (other, s)) for row in rows for s in shape.steps(row, other) if s in steps
    ]


def _at_equal_calls(row: str, of_two_calls: str, calls: range) -> Callable[[Shape], list[Link]]:
    """A row of one call a step at 2 S - 1 better than one of two calls, the last step's one, at S."""
    return lambda shape: [
        Link((row, 2 * s - 1), (of_two_calls, s))
        for s in shape.steps(of_two_calls)
        if (row, 2 * s - 1) in shape.places and 2 * s - 1 in calls
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
    """One row at S better than the other at 2 S, from S = 10 up to 2 S = 100, as in the paper's table."""
    return lambda shape: [
        Link((row, s), (other, 2 * s))
        for s in shape.steps(row, at_most=50)
        if s >= 10 and (other, 2 * s) in shape.places
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
        "sigma-hat (ddpm fixedlarge) is worst at S ≤ 50",
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
        "eta=0 is best at S ≤ 100",
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
        "a learned variance beats both fixed ones at S ≤ 100",
        f"{IDDPM}, section 4 and figure 8",
        _first(LEARNED, (SMALL, SIGMA_HAT), 100),
        "ddpm learned, fixedsmall and fixedlarge with S up to 100",
    ),
    Claim(
        "order-2-beats-ddim",
        "at S=10 multistep solvers of order 2 and 3 beat eta=0",
        f"{DPM_SOLVER}, abstract: 4.70 at 10 calls on CIFAR-10",
        _each_first(MULTISTEP, ETAS[0], range(10, 11)),
        "ddim eta=0 and a multistep solver with S=10",
    ),
    Claim(
        "unipc-few",
        "UniPC-3 is no worse than DPM-Solver++(2M) at S from 5 to 10",
        f"{UNIPC}, abstract: 3.87 at 10 calls on CIFAR-10",
        _each_first(("unipc",), "dpmpp-2m", range(5, 11)),
        "unipc and dpmpp-2m with S from 5 to 10",
    ),
    Claim(
        "order-3-late",
        "DPM-Solver++ of order 3 beats that of order 2 from S=15 on",
        f"{DPM_SOLVER_PP}, and its code, which lowers the order below 15 steps",
        _each_first(("dpmpp-3m",), "dpmpp-2m", range(15, 51)),
        "dpmpp-3m and dpmpp-2m with S from 15 to 50",
    ),
    Claim(
        "multistep-beats-single",
        "DPM-Solver++(2M) beats DPM-Solver++(2S) of as many network calls, up to 20",
        DPM_SOLVER_PP,
        _at_equal_calls("dpmpp-2m", "dpmpp-2s", range(5, 21)),
        "dpmpp-2s at S and dpmpp-2m at 2 S - 1, as in 5 and 9",
    ),
    Claim(
        "heun-late",
        "Heun's method is worse than eta=0 of as many network calls, up to 9",
        "diff-sampler, arXiv:2312.00094, table 2",
        _at_equal_calls(ETAS[0], "heun", range(3, 10)),
        "heun at S and ddim eta=0 at 2 S - 1, as in 5 and 9",
    ),
)
"""What the papers' tables show, in words and links."""
