"""Tell how fast a model answers, what each sampler adds to it, and what a sweep would cost.

    sampler-bench speed --model mine.py:make
    sampler-bench speed --model digits --samplers ddim dpmpp-2m --batch 1,32,256 --json

Everything is measured in turns within one run, so that its ratios hold on a machine that slows down.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from rich.progress import MofNCompleteColumn, TextColumn
from rich.table import Table

from bench.commands.estimate import Estimate, estimate_trial, span
from bench.commands.options import (
    console,
    load_plugins,
    parse_devices,
    parse_samplers,
    parse_spacing,
    parse_steps,
    print_json,
)
from bench.commands.progress import Bar
from bench.commands.verbosity import say
from bench.diffusion.grid import grid_for
from bench.errors import UsageError, one_line
from bench.plugins.cards import LoadedModel
from bench.plugins.lookup import load_model
from bench.records.provenance import environment
from bench.records.record import Environment
from bench.sweep.request import Sweep
from bench.sweep.speed import Overhead, Pace, Setting, measure_overheads, measure_paces


@dataclass(frozen=True)
class Report:
    """Everything that ``speed`` prints.

    Attributes:
        sweep: the default sweep of the model, whose cost is estimated.
        batch: its samples at a time, at which the overheads were measured.
        steps: steps of the trajectories, as many as the grid took.
        turns: how often each thing was measured.
        paces: the bare network, by batch ascending.
        overheads: the samplers, in the order asked for.
        estimates: the trials of the sweep.
        environment: machine, versions and command.
    """

    sweep: Sweep
    batch: int
    steps: int
    turns: int
    paces: Sequence[Pace]
    overheads: Sequence[Overhead]
    estimates: Sequence[Estimate]
    environment: Environment

    @property
    def measured(self) -> list[Pace]:
        """The batches that could be had."""
        return [pace for pace in self.paces if pace.seconds]

    @property
    def best(self) -> Pace:
        """The batch of the most images a second."""
        return best_of(self.measured)

    @property
    def faults(self) -> list[str]:
        """A sentence for each thing that failed; samplers that do not fit the model are none."""
        batches = [f"batch {pace.batch}: {pace.failure}" for pace in self.paces if pace.failure]
        lost = [(one.sampler.label, one.failure) for one in self.overheads if one.failure]
        return batches + [f"{label}: {why.message}" for label, why in lost if why.status == "failed"]


def execute(options: argparse.Namespace) -> int:
    """Measure and print; exit status 1 where a batch or a sampler failed."""
    load_plugins(options.plugin)
    report = measured(options)
    if options.json:
        print_json(as_json(report))
    else:
        _print(report)
    for one in report.overheads:
        if one.failure is not None and one.failure.status == "skipped" and not options.json:
            print(one_line(f"skipped: {one.sampler.label}: {one.failure.message}"))
    for fault in report.faults:
        print(one_line(f"failed: {fault}"), file=sys.stderr)
    return 1 if report.faults else 0


def measured(options: argparse.Namespace) -> Report:
    """Return what was measured.

    Raises:
        UsageError: if an option cannot be.
        BenchError: if the network answers at no batch.
    """
    batches, turns = parse_steps(options.batch, "--batch"), options.turns
    if batches[0] < 1:
        raise UsageError(f"--batch takes numbers of images from 1 on, got {batches[0]}")
    if turns < 1:
        raise UsageError(f"--turns must be at least 1, got {turns}")
    devices = parse_devices(options.device)
    if len(devices) > 1:
        raise UsageError(f"speed is of one device, got {', '.join(devices)}; give --device {devices[0]}")
    samplers = parse_samplers(options.samplers or ["all"])
    loaded = load_model(options.model, devices[0])
    asked = Sweep(options.model, samplers, unasked=True, precision=options.precision, devices=devices)
    sweep = asked.fitted_to(loaded.model)
    setting = Setting(
        loaded.model,
        grid_for(loaded.model, options.steps, parse_spacing(sweep.spacings[0])),
        torch.device(devices[0]),
        options.precision,
        turns,
        sweep.seed,
    )
    own = min(loaded.card.batch, sweep.n)
    paces = measure_paces(setting, sorted({*batches, own}))
    there = {pace.batch: pace for pace in paces if pace.seconds}
    batch = own if own in there else best_of(list(there.values())).batch
    overheads = _overheads(setting, sweep, there[batch], quiet=options.json)
    estimates = _estimates(loaded, sweep, there[batch], overheads)
    machine = environment(devices[0])
    return Report(sweep, batch, len(setting.grid), turns, paces, overheads, estimates, machine)


def best_of(paces: Sequence[Pace]) -> Pace:
    """Return the pace of the most images a second."""
    return max(paces, key=lambda pace: pace.throughput)


def _overheads(setting: Setting, sweep: Sweep, pace: Pace, *, quiet: bool) -> list[Overhead]:
    found = []
    with _Display(quiet=quiet) as display:
        display.planned(len(sweep.samplers), pace.batch)
        for one in measure_overheads(setting, sweep.samplers, pace.batch):
            found.append(one)
            display.ended(one)
    return found


def _estimates(
    loaded: LoadedModel, sweep: Sweep, pace: Pace, overheads: Sequence[Overhead]
) -> list[Estimate]:
    """Return what every trial of a sweep costs: its calls, each as measured, times the sampler's overhead."""
    ratios = {one.sampler.spec: one.ratio for one in overheads if one.ratios}
    seconds, samples = median(pace.seconds), (sweep.n, -(-sweep.n // pace.batch))
    return [
        estimate_trial(
            loaded.model,
            sampler,
            grid_for(loaded.model, steps, spacing),
            samples,
            seconds * ratios[sampler.spec],
        )
        for sampler, steps, spacing in sweep.trials()
        if sampler.spec in ratios
    ]


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as plain values: seconds, images a second, ratios, each turn of them."""
    return {
        "model": report.sweep.model,
        "device": report.sweep.devices[0],
        "precision": report.sweep.precision,
        "turns": report.turns,
        "network": [_plain_pace(pace) for pace in report.paces],
        "best_batch": report.best.batch,
        "overhead": {
            "batch": report.batch,
            "steps": report.steps,
            "samplers": [_plain_overhead(one) for one in report.overheads],
        },
        "sweep": {
            "n": report.sweep.n,
            "steps": report.sweep.steps,
            "batch": report.batch,
            "trials": [asdict(one) for one in report.estimates],
            "evaluations": sum(one.evaluations for one in report.estimates),
            "seconds": sum(one.seconds for one in report.estimates),
        },
        "environment": asdict(report.environment),
    }


def _plain_pace(pace: Pace) -> Mapping[str, Any]:
    if not pace.seconds:
        return {"batch": pace.batch, "failure": pace.failure}
    return {
        "batch": pace.batch,
        "ms_a_call": pace.latency,
        "ms_an_image": pace.milliseconds,
        "images_a_second": pace.throughput,
        "seconds": pace.seconds,
    }


def _plain_overhead(one: Overhead) -> Mapping[str, Any]:
    head = {"sampler": one.sampler.spec, "label": one.sampler.label}
    if one.failure is not None:
        return {**head, "status": one.failure.status, "message": one.failure.message}
    return {**head, "calls": one.calls, "overhead": one.ratio, "ratios": one.ratios, "seconds": one.seconds}


def _print(report: Report) -> None:
    sweep, machine, terminal = report.sweep, report.environment, console()
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items() if version)
    threads = f"{machine.threads} thread{'s' if machine.threads != 1 else ''}"
    where = f"{sweep.model} on {sweep.devices[0]}, {sweep.precision}"
    print(f"{where}: {machine.device_name}, {threads}; {versions}")
    terminal.print(_network_table(report))
    first, best = report.measured[0], report.best
    print(
        f"latency {first.latency:.3g} ms at batch {first.batch};"
        f" best batch {best.batch}: {_rate(best)} images a second"
    )
    terminal.print(_overhead_table(report))
    seconds = sum(one.seconds for one in report.estimates)
    evaluations = sum(one.evaluations for one in report.estimates)
    steps = ", ".join(map(str, sweep.steps))
    print(
        f"the default sweep of these samplers, n = {sweep.n:,} at S = {steps}, batch {report.batch}:"
        f" {len(report.estimates)} trials, {evaluations:,} network evaluations, about {span(seconds)} of"
        f" sampling on {sweep.devices[0]}"
    )


def _network_table(report: Report) -> Table:
    shown = Table(title=f"the network alone, median of {report.turns} turns", title_justify="left")
    for head in ("batch", "ms a call", "ms an image", "images a second", "spread"):
        shown.add_column(head, justify="right")
    for pace in report.paces:
        if pace.seconds:
            numbers = f"{pace.latency:.4g}", f"{pace.milliseconds:.4g}", _rate(pace)
            shown.add_row(str(pace.batch), *numbers, f"{pace.spread:.0%}")
        else:
            shown.add_row(str(pace.batch), "failed")
    return shown


def _rate(pace: Pace) -> str:
    """Return images a second with three digits at least."""
    return f"{pace.throughput:,.0f}" if pace.throughput >= 100 else f"{pace.throughput:.3g}"


def _overhead_table(report: Report) -> Table:
    title = f"batch {report.batch}, {report.steps} steps: time over that of the bare calls"
    shown = Table(title=title, title_justify="left")
    shown.add_column("sampler")
    for head in ("calls", "ms a trajectory", "overhead", "least", "greatest"):
        shown.add_column(head, justify="right")
    for one in report.overheads:
        if one.failure is not None:
            shown.add_row(one.sampler.label, one.failure.status)
            continue
        ratios = (one.ratio, min(one.ratios), max(one.ratios))
        cells = (f"{1000 * median(one.seconds):.4g}", *(f"x{ratio:.3f}" for ratio in ratios))
        shown.add_row(one.sampler.label, str(one.calls), *cells)
    return shown


class _Display(Bar):
    """Progress of the samplers: a bar on a terminal, one line of what is going on elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(MofNCompleteColumn(), TextColumn("samplers"), quiet=quiet)

    def planned(self, samplers: int, batch: int) -> None:
        """Say what is measured and set the bar up."""
        self._bar = self._progress.add_task("measuring", total=samplers)
        if not self._quiet:
            say(f"measuring {samplers} samplers at batch {batch}")

    def ended(self, one: Overhead) -> None:
        """Move the bar."""
        self._progress.update(self._bar, advance=1, description=one.sampler.label)
