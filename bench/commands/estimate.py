"""What a run would cost: network calls counted, time estimated from measured calls."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.commands.options import print_json
from bench.commands.progress import say_plan
from bench.commands.verbosity import say
from bench.diffusion.calls import count_calls
from bench.diffusion.conditions import bound
from bench.diffusion.grid import Grid
from bench.diffusion.interfaces import EpsilonModel
from bench.diffusion.sampling import Sampler
from bench.errors import NotApplicable, UsageError
from bench.records.ledger import Plan
from bench.sweep.rounds import Rounds
from bench.sweep.runner import Runner, SampledCell
from bench.sweep.speed import call_seconds, in_turns


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
    total = f"{len(estimates)} trials to compute, {calls:,} network evaluations, about {span(seconds)}"
    print(f"{total}; nothing was computed")
    return 0


@dataclass(frozen=True)
class Estimate:
    """What a trial would cost.

    Attributes:
        trial: sampler and number of steps.
        evaluations: network calls times samples.
        seconds: seconds of sampling.
        skipped: why the sampler cannot run on the model; empty where it can.
    """

    trial: str
    evaluations: int = 0
    seconds: float = 0.0
    skipped: str = ""


def estimate_trial(
    model: EpsilonModel, sampler: Sampler, walk: Grid, samples: tuple[int, int], seconds: float
) -> Estimate:
    """Return what a trial would cost: its calls on every block, each as long as the one that was measured.

    Args:
        model: the noise predictor.
        sampler: the rule.
        walk: the steps.
        samples: (samples of the trial, blocks that they are drawn in).
        seconds: seconds of one network call on one block, with the sampler's share where it was measured.
    """
    name = f"{sampler.spec}@{walk.requested}"
    try:
        calls = count_calls(model, sampler, walk)
    except NotApplicable as reason:
        return Estimate(name, skipped=str(reason))
    n, blocks = samples
    return Estimate(name, calls * n, calls * blocks * seconds)


def _estimates(runner: Runner, plan: Plan[SampledCell]) -> list[Estimate]:
    seconds, model = _seconds_a_call(runner, plan), runner.loaded.model
    cells = [(cell, (cell.trial.n, cell.trial.block_count)) for cell in plan.pending]
    return [estimate_trial(model, cell.sampler, cell.walk, many, seconds) for cell, many in cells]


def _seconds_a_call(runner: Runner, plan: Plan[SampledCell]) -> float:
    """Return the seconds of one network call on one block, the best of three after a warm-up.

    Raises:
        ModelError: if the model raises, or its answers are none.
    """
    if not plan.pending:
        return 0.0
    trial, walk = plan.pending[0].trial, plan.pending[0].walk
    model = bound(runner.loaded.model, range(trial.batch), trial.seed)
    x = torch.zeros((trial.batch, *model.shape), device=runner.worker.device)
    times = [walk[0].times(x)]
    (measured,) = in_turns([lambda: call_seconds(model, x, times, trial.precision)], 3)
    return min(measured)


def say_cost(runner: Runner, plan: Plan[SampledCell]) -> None:
    """Print what a sweep will take before it begins."""
    estimates = _estimates(runner, plan)
    calls, seconds = sum(e.evaluations for e in estimates), sum(e.seconds for e in estimates)
    cost = f"{calls:,} network evaluations, about {span(seconds)} of sampling on {runner.worker.device}"
    say(f"{len(estimates)} trials of {runner.sweep.n:,} images to compute: {cost}")


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
            f"--budget is too short: {span(left)} are left, and a table of n = {rounds.looks[0]:,} takes"
            f" about {span(first)}; give more time, or fewer --samplers or --steps"
        )
    whole = _seconds(rounds, len(rounds.looks) - 1)
    costs = {n: whole * n / rounds.most for n in rounds.looks}
    n = max((n for n, seconds in costs.items() if seconds <= left), default=rounds.looks[0])
    steps = ", ".join(f"{one:,}" for one in rounds.looks[:4])
    say(
        f"{span(left)}: n = {n:,} of every trial fits, about {span(costs[n])} of sampling; drawn in rounds"
        f" of {steps}{', ...' if len(rounds.looks) > 4 else ''} samples, up to {rounds.most:,}"
    )


def _seconds(rounds: Rounds, look: int) -> float:
    plan = rounds.plan(look)
    return sum(estimate.seconds for estimate in _estimates(rounds.runner.at(rounds.looks[look]), plan))


def span(seconds: float) -> str:
    """Return a time in words: ``90 s``, ``45 min``, ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
