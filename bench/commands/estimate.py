"""What a run would cost: network calls counted, time estimated from measured calls."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from bench.commands.options import print_json
from bench.commands.progress import say_plan
from bench.device.clock import Clock
from bench.device.precision import PRECISIONS
from bench.diffusion.calls import count_calls
from bench.diffusion.conditions import bound
from bench.errors import NotApplicable, UsageError
from bench.records.ledger import Plan
from bench.sweep.meter import metered
from bench.sweep.rounds import Rounds
from bench.sweep.runner import Runner, SampledCell


def dry_run(runner: Runner, plan: Plan[SampledCell], *, as_json: bool) -> int:
    """Print what would be computed, with network calls counted and time estimated from measured calls."""
    estimates = _estimates(runner, plan)
    calls, seconds = sum(e.evaluations for e in estimates), sum(e.seconds for e in estimates)
    if as_json:
        pending = [vars(estimate) for estimate in estimates]
        print_json({"pending": pending, "reused": len(plan.reused), "evaluations": calls, "seconds": seconds})
        return 0
    for e in estimates:
        cost = f"{e.evaluations:>12,} network evaluations  {e.seconds:>8.1f} s"
        print(f"{e.trial:<44} {f'skipped: {e.skipped}' if e.skipped else cost}")
    say_plan(plan)
    total = f"{len(estimates)} trials to compute, {calls:,} network evaluations, about {_span(seconds)}"
    print(f"{total}; nothing was computed")
    return 0


@dataclass(frozen=True)
class _Estimate:
    trial: str
    evaluations: int = 0
    seconds: float = 0.0
    skipped: str = ""


def _estimates(runner: Runner, plan: Plan[SampledCell]) -> list[_Estimate]:
    seconds = _seconds_a_call(runner, plan)
    found = []
    for cell in plan.pending:
        trial = cell.trial
        name = f"{trial.sampler}@{trial.steps}"
        try:
            calls = count_calls(runner.loaded.model, cell.sampler, cell.walk)
            found.append(_Estimate(name, calls * trial.n, calls * trial.block_count * seconds))
        except NotApplicable as reason:
            found.append(_Estimate(name, skipped=str(reason)))
    return found


def _seconds_a_call(runner: Runner, plan: Plan[SampledCell]) -> float:
    """Return the seconds of one network call on one block, the best of three after a warm-up.

    Raises:
        ModelError: if the model raises, or its answers are none.
    """
    if not plan.pending:
        return 0.0
    device = runner.worker.device
    first = plan.pending[0]
    model = bound(runner.loaded.model, range(first.trial.batch), first.trial.seed)
    x = torch.zeros((first.trial.batch, *model.shape), device=device)
    times = first.walk[0].times(x)
    measured = []
    with torch.inference_mode():
        for _ in range(4):
            clock = Clock(device)
            with clock.running():
                metered(model, Clock(device), PRECISIONS[first.trial.precision])(x, times)
            measured.append(clock.seconds)
    return min(measured[1:])


def say_cost(runner: Runner, plan: Plan[SampledCell]) -> None:
    """Print what a sweep will take before it begins."""
    estimates = _estimates(runner, plan)
    calls, seconds = sum(e.evaluations for e in estimates), sum(e.seconds for e in estimates)
    cost = f"{calls:,} network evaluations, about {_span(seconds)} of sampling on {runner.sweep.devices[0]}"
    print(f"{len(estimates)} trials of {runner.sweep.n:,} images to compute: {cost}", file=sys.stderr)


def say_fits(rounds: Rounds, left: float) -> None:
    """Print how many samples of every trial a time allows.

    Args:
        rounds: the sweep.
        left: seconds.

    Raises:
        UsageError: if it does not allow the first round.
    """
    first = _seconds(rounds, 0)
    if first > left:
        raise UsageError(
            f"--budget is too short: {_span(left)} are left, and a table of n = {rounds.looks[0]:,} takes"
            f" about {_span(first)}; give more time, or fewer --samplers or --steps"
        )
    whole = _seconds(rounds, len(rounds.looks) - 1)
    costs = {n: whole * n / rounds.most for n in rounds.looks}
    n = max((n for n, seconds in costs.items() if seconds <= left), default=rounds.looks[0])
    steps = ", ".join(f"{one:,}" for one in rounds.looks[:4])
    print(
        f"{_span(left)}: n = {n:,} of every trial fits, about {_span(costs[n])} of sampling; drawn in rounds"
        f" of {steps}{', ...' if len(rounds.looks) > 4 else ''} samples, up to {rounds.most:,}",
        file=sys.stderr,
    )


def _seconds(rounds: Rounds, look: int) -> float:
    plan = rounds.plan(look)
    return sum(estimate.seconds for estimate in _estimates(rounds.runner.at(rounds.looks[look]), plan))


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
