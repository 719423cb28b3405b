"""Sweep samplers over numbers of steps: draw, score, record; then print the table and draw the plots.

What is done already is not done again: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace

import torch

from bench.commands.estimate import dry_run, say_cost, say_fits
from bench.commands.options import (
    console,
    load_plugins,
    parse_devices,
    parse_metrics,
    parse_samplers,
    parse_shard,
    parse_spacings,
    parse_steps,
    parse_time,
    print_json,
    say_skipped,
    steps_of_sets,
    warn,
)
from bench.commands.plot import draw, keep_names
from bench.commands.progress import Shown
from bench.commands.together import at_work
from bench.commands.trackers import Trackers, check_trackers, tracking
from bench.commands.usage import AFFORDABLE, DEFAULT_MODEL
from bench.commands.verbosity import detail, is_quiet, say
from bench.device.modes import Mode
from bench.device.ranks import own_device, own_rank
from bench.diffusion.spacing import steps_of
from bench.errors import BenchError, UsageError, one_line
from bench.plugins.cards import ModelCard
from bench.plugins.executor import Configurable
from bench.plugins.loading import registry
from bench.published.presets import Preset, get_preset
from bench.records.frame import frame, plain_rows
from bench.records.ledger import Plan
from bench.records.record import Record
from bench.records.store import Store
from bench.records.trial import split_option, with_option
from bench.report.tables import sheets
from bench.report.tables.artefacts import beside, write_tables
from bench.report.tables.budgets import arranged
from bench.report.tables.scores import show
from bench.report.tables.table import tables_of
from bench.spec import split_spec
from bench.sweep.preflight import missing_requirements
from bench.sweep.request import AUTO, Sweep
from bench.sweep.rounds import Rounds, Rule
from bench.sweep.runner import Runner, SampledCell

DEFAULT_STEPS = "10,20,50,100,1000"
DEFAULT_N = 1000


@dataclass(frozen=True)
class Asked:
    """What the options of ``run`` come to.

    Attributes:
        sweeps: one for each guidance scale, and for each rule of time grids of a preset.
        rule: when drawing stops; None where every trial gets its n.
        preset: whose protocol it is; None where it is nobody's.
        lacks: what the preset's sweep lacks, a sentence each.
    """

    sweeps: Sequence[Sweep]
    rule: Rule | None
    preset: Preset | None
    lacks: Sequence[str] = ()


def execute(options: argparse.Namespace) -> int:
    """Run the sweep; of several processes that ``torchrun`` started, the first alone tells of it."""
    if own_rank() == 0:
        return _execute(options)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return 0 if options.dry_run else _execute(options)


def _execute(options: argparse.Namespace) -> int:
    if load_plugins(options.plugin).failures and options.strict:
        return 1
    check_trackers(options.log)
    wanted = asked(options)
    store = Store(options.results)
    if wanted.lacks:
        for sentence in wanted.lacks:
            print(f"error: {sentence}", file=sys.stderr)
        return 1
    if options.dry_run:
        return max(_dry_run(one, store, options, wanted.rule) for one in wanted.sweeps)
    started = time.perf_counter()
    with tracking(options.log, options.results) as trackers:
        records = computed(wanted, store, Shown(quiet=options.json), trackers)
    if own_rank() != 0:
        return 0  # the first process answers for all: torchrun would end it for another's failed trial
    if not records:
        print(f"shard {options.shard} is empty: there are fewer trials than shards")
        return 0
    status = _report(records, store, time.perf_counter() - started, options.json, wanted.preset)
    return max(status, int(bool(trackers.failed)))


def asked(options: argparse.Namespace) -> Asked:
    """Return what the options of ``run`` come to.

    Raises:
        UsageError: if something is asked for that cannot be.
    """
    rule = _rule(options)
    preset = get_preset(options.preset) if options.preset else None
    sweep = _sweep(options, preset)
    lacks = list(missing_requirements(preset, sweep)) if preset is not None else []
    scales = options.guidance or []
    models = [with_option(sweep.model, "guidance", f"{scale:g}") for scale in scales] or [sweep.model]
    parts = (
        [sweep]
        if options.samplers or options.spacing or preset is None
        else _by_grid(sweep, preset, options.clip)
    )
    return Asked([replace(part, model=model) for model in models for part in parts], rule, preset, lacks)


def computed(wanted: Asked, store: Store, shown: Shown, trackers: Trackers) -> list[Record]:
    """Run what was asked for and return its records, those of real images last in each sweep.

    Args:
        wanted: what was asked for.
        store: where records are.
        shown: what is shown on the way.
        trackers: told of every trial as it ends.
    """
    store.prepare()
    started, records = time.perf_counter(), list[Record]()
    with at_work(store, wanted.rule, shown.say):
        for place, one in enumerate(wanted.sweeps):
            if wanted.rule is None:
                records += swept(one, store, shown, preset=wanted.preset, trackers=trackers)
            else:
                share = _share(wanted.rule, time.perf_counter() - started, len(wanted.sweeps) - place)
                records += _swept_in_rounds(one, store, shown, share)
            for record in records:  # those that were there already, and real images, are told as well
                trackers.tell(record)
    return records


def _rule(options: argparse.Namespace) -> Rule | None:
    """Return when drawing stops; None where every trial gets its n."""
    budget = parse_time(options.budget, "--budget") if options.budget is not None else None
    rule = Rule(options.until_tie, options.until_se, budget)
    return rule if rule.asks or budget is not None else None


def _share(rule: Rule, spent: float, sweeps: int) -> Rule:
    """Return the rule of the next of some sweeps, which share what is left of the time."""
    return rule if rule.budget is None else replace(rule, budget=(rule.budget - spent) / sweeps)


def _dry_run(sweep: Sweep, store: Store, options: argparse.Namespace, rule: Rule | None) -> int:
    runner = Runner(sweep, store)
    if rule is not None:
        rounds = Rounds(runner, rule)
        runner = runner.at(rounds.most)
        if rule.budget is not None:
            say_fits(rounds, rule.budget)
        say(f"in rounds of {_listed(rounds.looks)} samples; at most:")
    plan = runner.plan()
    _say_notes(runner, plan, Shown(quiet=True))
    return dry_run(runner, plan, as_json=options.json)


def swept(
    sweep: Sweep,
    store: Store,
    shown: Shown,
    *,
    preset: Preset | None = None,
    trackers: Trackers | None = None,
) -> list[Record]:
    """Run one sweep and return its records, the real images' last.

    Args:
        sweep: what was asked for.
        store: where records are.
        shown: what is shown on the way.
        preset: whose protocol it is; its cost is told.
        trackers: told of every trial as it ends.
    """
    measuring = shown.measuring()
    runner = Runner(sweep, store, measuring)
    plan = runner.plan()
    _say_notes(runner, plan, shown)
    _keep_training(runner.loaded.card, store)
    if preset is not None:
        say_cost(runner, plan)
    if plan.pending:
        with measuring:
            runner.scoring.references.measure()
    with shown.display() as display:
        records = runner.run(plan, trackers.beside(display) if trackers else display)
        floor = runner.floor() if plan.entries else None
    _say_changes(runner)
    return records + ([floor] if floor else [])


def _swept_in_rounds(sweep: Sweep, store: Store, shown: Shown, rule: Rule) -> list[Record]:
    """Run one sweep in rounds and return the records of all rounds, the real images' last."""
    began = time.perf_counter()
    measuring = shown.measuring()
    runner = Runner(sweep, store, measuring)
    rounds = Rounds(
        runner,
        rule,
        shown.say,
        lambda: time.perf_counter() - began,
    )
    first = rounds.plan()
    _say_notes(runner.at(rounds.looks[0]), first, shown)
    if rounds.most != sweep.n:
        shown.say(f"n = {sweep.n:,} is no first round doubled: at most {rounds.most:,}")
    _keep_training(runner.loaded.card, store)
    with measuring:
        runner.scoring.references.measure()
    if rule.budget is not None:
        say_fits(rounds, rule.budget - (time.perf_counter() - began))
    records = rounds.run(shown.display)
    floor = runner.at(max(record.trial.n for record in records)).floor()
    _say_changes(runner)
    return records + ([floor] if floor else [])


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(f"{number:,}" for number in numbers)


def _say_notes(runner: Runner, plan: Plan[SampledCell], shown: Shown) -> None:
    for sentence in runner.notes(plan):
        shown.say(sentence)


def _say_changes(runner: Runner) -> None:
    for sentence in runner.changes():
        warn(sentence)


def _shard(options: argparse.Namespace) -> tuple[int, int]:
    if options.shard is None:
        return 1, 1
    if _rule(options) is not None:
        raise UsageError(
            "--shard parts trials that rounds compare: leave --until-tie, --until-se, --budget out"
        )
    return parse_shard(options.shard)


def _executor(options: argparse.Namespace, model: str, devices: Sequence[str]) -> str:
    """Return who draws: what was named; a process of its own for each of several devices or a user's file."""
    own = _of_executors(options)
    name, given = split_spec(options.executor or "")
    for option, executor, _ in own:
        if name != executor:
            raise UsageError(f"{option} is for --executor {executor}; give that too, or leave {option} out")
    if options.gpus_per_worker is not None and torch.device(devices[0]).type != "cuda":
        raise UsageError("--gpus-per-worker is for GPUs; give --device cuda, or leave it out")
    if options.executor is not None:
        if options.isolate is not None:
            raise UsageError("--executor names who draws: give it, or --isolate or --no-isolate, not both")
        every = ",".join(filter(None, [given, *(text for *_, text in own)]))
        return f"{name}:{every}" if every else name
    if options.isolate is False and len(devices) > 1:
        raise UsageError(f"--no-isolate is for one device, got {', '.join(devices)}")
    users_file = bool(options.plugin) or ".py:" in model
    apart = users_file if options.isolate is None else options.isolate
    return "processes" if apart or len(devices) > 1 else "serial"


def _of_executors(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Return (option, executor that it is for, what the executor is given) of those that were given."""
    if options.slurm is not None and split_spec(f"submitit:{options.slurm}")[0] != "submitit":
        raise UsageError(
            f"--slurm takes KEY=VALUE,... as in partition=gpu,time=2:00:00, got {options.slurm!r}"
        )
    every = [
        ("--address", "ray", "address=", options.address),
        ("--gpus-per-worker", "ray", "gpus_per_worker=", options.gpus_per_worker),
        ("--slurm", "submitit", "", options.slurm),
    ]
    return [(option, name, f"{key}{value}") for option, name, key, value in every if value is not None]


def _devices(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the torch devices; those of other machines need not be here."""
    executor = registry().executors.entries.get(split_spec(options.executor or "")[0])
    elsewhere = isinstance(executor, Configurable) and executor.elsewhere
    gpus = options.device == "cuda" or (options.device == "auto" and options.gpus_per_worker is not None)
    return ("cuda:0",) if elsewhere and gpus else parse_devices(own_device(options.device))


def _mode(options: argparse.Namespace) -> str:
    """Return how the network is to be run."""
    if options.mode == AUTO and options.channels_last:
        raise UsageError("--mode auto tries both layouts of the weights: leave --channels-last out")
    return AUTO if options.mode == AUTO else str(Mode(options.mode, options.channels_last))


def _sweep(options: argparse.Namespace, preset: Preset | None) -> Sweep:
    """Return what was asked for: an option given, else the preset's choice, else the default."""
    if options.quick and preset is None:
        raise UsageError("--quick belongs to a --preset; give --n for another number of samples")
    default_model = preset.model if preset else DEFAULT_MODEL
    model = default_model if options.model is None else options.model
    own = preset if preset and preset.is_model(model) else None
    default = DEFAULT_N if options.budget is None else AFFORDABLE
    n = default if preset is None else preset.quick_n if options.quick else preset.n
    own_steps = steps_of_sets(options.samplers or [])
    steps = own_steps or (preset.steps if preset else parse_steps(DEFAULT_STEPS))
    calls = parse_steps(options.calls, "--calls") if options.calls is not None else ()
    if preset and preset.calls and options.steps is None and not calls and not own_steps:
        calls = preset.calls
    spacings = parse_spacings(options.spacing) if options.spacing is not None else ()
    told = [steps_of(one) for one in spacings]
    alone = tuple(sorted({count for one in told for count in one})) if all(told) else ()
    devices = _devices(options)
    return Sweep(
        model=model,
        samplers=parse_samplers(options.samplers or (preset.samplers if preset else ["all"]), options.clip),
        steps=parse_steps(options.steps) if options.steps is not None else alone or steps,
        calls=calls,
        unasked=options.steps is None and not calls and preset is None and not own_steps,
        n=n if options.n is None else options.n,
        seed=options.seed,
        spacings=spacings or ((preset.spacing if preset else "uniform"),),
        spacing_at=preset.spacing_at if preset and not spacings else {},
        batch=None if options.batch == AUTO else options.batch,
        auto_batch=options.batch == AUTO,
        mode=_mode(options),
        precision=options.precision or (AUTO if options.mode == AUTO else "float32"),
        devices=devices,
        metrics=parse_metrics(options.metrics) if options.metrics is not None else own.metrics if own else (),
        reference=options.reference or (own.reference if own else None),
        held_out=options.held_out,
        executor=_executor(options, model, devices),
        timeout=options.timeout,
        shard=_shard(options),
        strict=options.strict,
        keep_features=options.keep_features,
        plugins=tuple(options.plugin),
    )


def _by_grid(sweep: Sweep, preset: Preset, clip: str | None = None) -> list[Sweep]:
    """Return a preset's sweep in parts, one for each rule that chooses the time steps of some of its rows."""
    return [
        replace(sweep, samplers=parse_samplers(samplers, clip), spacings=(spacing,))
        for spacing, samplers in preset.by_spacing().items()
    ]


def _keep_training(card: ModelCard, store: Store) -> None:
    """Copy the table of the model's training into the results, where there is one that can be read."""
    if card.training is None:
        return
    from bench.records.trainings import read_metrics  # the trainer brings matplotlib, which takes a second

    try:
        read_metrics(card.training)
        store.keep_training(split_option(card.name, "guidance")[0], card.training)
    except BenchError as error:
        warn(f"{error}; the results will not show the training")
    except OSError as error:
        raise BenchError(f"cannot write {store.training}: {error.strerror}; choose --results DIR") from None


def _report(
    records: Sequence[Record], store: Store, seconds: float, as_json: bool, preset: Preset | None
) -> int:
    """Print the table, write and draw everything, name the failures, and return the exit status."""
    failed = [record for record in records if record.status == "failed"]
    tables = tables_of(records)
    if as_json:
        print_json(plain_rows(frame(records)))
    everything = store.read()[0]  # files are made of all the folder's records, whatever this run was about
    paths = write_tables(store.folder, everything, [preset.name] if preset else [])
    whole = tables_of(everything)
    paths += draw(whole, store)
    keep_names(store, everything, whole)
    if not as_json:
        for table in tables:
            show(arranged(table), console())
        for sheet in beside(preset.name, records) if preset else []:
            print(f"\n{sheets.plain(sheet)}", end="")
        say_skipped(records)
        if not is_quiet():
            print(f"{len(records)} records in {store.records}, {seconds:.0f} s")
            print("".join(f"  {path}\n" for path in paths), end="")
    for record in failed:
        at_fault = (
            f"model {record.trial.model}" if record.stage.startswith("model") else record.sampler.plugin
        )
        where = f"{record.title} ({at_fault})"
        print(one_line(f"failed: {where}, {record.stage}: {record.message}"), file=sys.stderr)
        detail(record.failure.traceback if record.failure else "")
    if failed:
        print(
            f"{len(failed)} of {len(records)} trials failed; `sampler-bench show` has the tracebacks",
            file=sys.stderr,
        )
    return 1 if failed else 0
