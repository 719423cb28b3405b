"""Tell from the trials of a pilot how many images separate two samplers, or that no n in reach does.

The error of the paired difference goes with 1 / sqrt(n): with n_0 images and an error of se_0 in the pilot,
se(n) = se_0 sqrt(n_0 / n). The power at n is the chance that `compare` tells the two apart at 95%, if their
true difference is the pilot's. That has an error too: the n for both ends of its 95% interval is told beside.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from bench.commands.compare import pair_of, plain_note, score_of
from bench.commands.options import load_plugins, parse_steps, print_json, read_records
from bench.errors import UnknownNameError, UsageError
from bench.records.record import Record
from bench.stats.comparison import Comparison, compare
from bench.stats.sequential import needed_ratio, power


@dataclass(frozen=True)
class Plan:
    """How many images two trials of a number of steps take.

    Attributes:
        steps: S of both.
        metric: name of the score.
        n: images of the pilot.
        difference: second less first, of the pilot.
        se: its standard error.
        power: chance that this n tells them apart.
        needed: least n with the power asked for, if the difference is the pilot's; None where it is 0.
        least: the same, if it is the larger end of its 95% interval.
        greatest: the same, if it is the smaller end; None where that is 0.
        at_most: chance that the greatest affordable n tells them apart.
    """

    steps: int
    metric: str
    n: int
    difference: float
    se: float
    power: float
    needed: int | None
    least: int | None
    greatest: int | None
    at_most: float


def execute(options: argparse.Namespace) -> int:
    """Print a line for each number of steps."""
    if not 0.05 < options.power < 1:
        raise UsageError(f"--power takes a chance between 0.05 and 1, got {options.power:g}")
    if options.most < 2:
        raise UsageError(f"--most takes a number of images from 2 on, got {options.most}")
    load_plugins(options.plugin)
    records, whole = read_records(options.results, options.model)
    scored = [record for record in records if record.scores and record.kind != "real"]
    plans, notes = list[Plan](), dict[str, None]()
    for first, second, said in _pairs(scored, options):
        a, b = score_of(first, options.metric), score_of(second, options.metric)
        found = compare(b, a)
        plans.append(_plan(first, found, a.metric, len(a.leave_one_out), options.power, options.most))
        notes |= dict.fromkeys([*said, *plain_note([a, b])])
    if options.json:
        print_json([asdict(plan) for plan in plans])
    else:
        print(f"{options.trials[1]} less {options.trials[0]}, two-sided at 95%:")
        print("\n".join([*(_line(plan, options.power, options.most) for plan in plans), *notes]))
    return 0 if whole else 1


def _pairs(
    records: Sequence[Record], options: argparse.Namespace
) -> Iterator[tuple[Record, Record, Sequence[str]]]:
    """Yield the records that are compared, and what is to be said of them, by number of steps.

    Raises:
        UsageError: if there is no such pair.
    """
    trials: list[str] = options.trials
    told = ["@" in text for text in trials]
    if any(told):
        if options.steps or not all(told):
            raise UsageError("give two samplers, with --steps S or without, or two of SAMPLER@STEPS")
        yield pair_of(records, trials, options.metric)
        return
    asked = parse_steps(options.steps) if options.steps else ()
    found = False
    for steps in asked or sorted({record.trial.steps for record in records}):
        try:
            yield pair_of(records, [f"{text}@{steps}" for text in trials], options.metric)
            found = True
        except UnknownNameError:
            if asked:
                raise
    if not found:
        raise UsageError(f"no number of steps has trials of both {trials[0]} and {trials[1]}")


def _plan(record: Record, found: Comparison, metric: str, groups: int, chance: float, most: int) -> Plan:
    n, apart = record.trial.n, abs(found.difference)
    reach = (found.high - found.low) / 2
    ratio = needed_ratio(chance, groups)

    def images(difference: float) -> int | None:
        return max(2, math.ceil(n * (ratio * found.se / difference) ** 2)) if difference > 0 else None

    return Plan(
        steps=record.trial.steps,
        metric=metric,
        n=n,
        difference=found.difference,
        se=found.se,
        power=power(apart, found.se, groups),
        needed=images(apart),
        least=images(apart + reach),
        greatest=images(apart - reach),
        at_most=power(apart, found.se * math.sqrt(n / most), groups),
    )


def _line(plan: Plan, chance: float, most: int) -> str:
    pilot = f"S={plan.steps}: {plan.metric} {plan.difference:+.4g} ± {plan.se:.2g} with {plan.n:,} images"
    if plan.needed is None or plan.needed > most:
        there = f"{plan.at_most:.2f}" if plan.needed is not None else "nothing but chance"
        least = f"; from {plan.least:,} on at best" if plan.least is not None and plan.least <= most else ""
        return f"{pilot}: no n up to {most:,} separates them: power {there} there{least}"
    greatest = "no n at all" if plan.greatest is None else f"{plan.greatest:,}"
    return (
        f"{pilot}: {plan.needed:,} separate them with power {chance:g}"
        f" ({plan.least:,} to {greatest} within the pilot's error)"
    )
