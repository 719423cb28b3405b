"""A sweep from Python: the options of the command ``run``, with objects in the place of names."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.commands.options import load_plugins
from bench.commands.paths import own_packages_first
from bench.commands.plot import keep_names
from bench.commands.run import asked, computed
from bench.commands.trackers import check_trackers, tracking
from bench.device.precision import own_float32
from bench.diffusion.interfaces import EpsilonModel
from bench.diffusion.sampling import Sampler
from bench.errors import UsageError
from bench.files.digests import file_digest
from bench.files.neighbours import used_files
from bench.files.source import edited_files
from bench.interactive.arguments import options_of
from bench.interactive.results import Results
from bench.interactive.showing import shown_here
from bench.plugins.cards import ModelCard
from bench.plugins.objects import card_of, offered
from bench.records.provenance import asked_by
from bench.records.store import Store
from bench.report.tables.artefacts import write_tables
from bench.report.tables.table import tables_of
from bench.sweep.worker import worker

Samplers = str | Sampler | Sequence[str | Sampler]
"""``all``, the name of a set or of a sampler, a ``@sampler`` function; or several of these."""

Model = str | Path | EpsilonModel | ModelCard
"""What ``--model`` takes, an object that is a model, or a card that says more of one."""

Numbers = int | str | Sequence[int]


def run(
    samplers: Samplers | None = None,
    steps: Numbers | None = None,
    *,
    model: Model | None = None,
    n: int | None = None,
    calls: Numbers | None = None,
    spacings: str | Sequence[str] | None = None,
    metrics: str | Sequence[str] | None = None,
    reference: str | Path | None = None,
    seed: int | None = None,
    device: str | Sequence[str] | None = None,
    results: str | Path = "results",
    progress: bool = True,
    **options: Any,
) -> Results:
    """Sweep samplers over numbers of steps and return what came out; ``sampler-bench run`` from Python.

    ``bench.run("paper", [10, 20], model="digits", n=1000)``. What is in the results folder already is not
    computed again, and what is made here is kept there, with its tables: the command and this function go on
    where the other one stopped.

    A model or a sampler may be an object, without a file: anything that keeps the protocol
    :class:`bench.EpsilonModel`, and a ``@bench.sampler`` function. It is called by its name, and a changed
    object of that name never answers for the old one: records hold a hash of its code and of all its values.
    An object stays in this process: it is drawn on one device, and no crash is caught.

    Args:
        samplers: names, sets, objects, or several of them; all of them where None.
        steps: numbers of steps S, a column each; 10, 20, 50, 100, 1000 where None.
        model: a name, ``FILE.py:FUNCTION``, a checkpoint, an object, or a :class:`bench.ModelCard` that says
            what an object's samples should resemble; ``digits`` where None.
        n: samples a trial; 1000 where None.
        calls: numbers of network calls in the place of steps.
        spacings: rules that choose the times.
        metrics: scores; the model's where None.
        reference: images to score against; the model's where None.
        seed: the seed of the noise.
        device: a torch device; several for models and samplers that have files.
        results: folder of the records.
        progress: whether to show how far it is, and what is done other than it was asked for.
        options: further options of the command, with underscores: ``until_tie=0.02, keep_features=True``.

    Raises:
        UsageError: if something is asked for that cannot be.
        BenchError: if the model cannot be loaded, or results cannot be written. A trial that fails is a
            record with the reason, see :attr:`Results.failures`.
    """
    own_packages_first()
    card = None if model is None or isinstance(model, str | Path) else card_of(model)
    rows = _each(samplers)
    objects = [one for one in rows if isinstance(one, Sampler)]
    arguments = {
        "samplers": None if samplers is None else [_name_of(one) for one in rows],
        "steps": steps,
        "model": card.name if card is not None else model,
        "n": n,
        "calls": calls,
        "spacings": spacings,
        "metrics": metrics,
        "reference": reference,
        "seed": seed,
        "device": device,
        "results": results,
        **options,
    }
    chosen, words = options_of("run", arguments)
    _stay_here(chosen, bool(card or objects))
    with ExitStack() as stack:
        stack.enter_context(own_float32())
        worker.cache_clear()  # a worker of a file or an object that was changed since, under the same name
        stack.callback(worker.cache_clear)
        if card or objects:
            stack.enter_context(offered([card] if card else [], objects))
            told = ", ".join(f"{name}={value!r}" for name, value in arguments.items() if value is not None)
            stack.enter_context(asked_by(f"bench.run({told})"))
        else:
            stack.enter_context(asked_by(shlex.join(["sampler-bench", "run", *words])))
        for file in [*chosen.plugin, *_file_of(chosen.model)]:
            _refuse_changed(file)
        for file in edited_files([*([card.load] if card else []), *(one.function for one in objects)]):
            raise _changed(file)
        load_plugins(chosen.plugin)
        check_trackers(chosen.log)
        wanted = asked(chosen)
        if wanted.lacks:
            raise UsageError("; ".join(wanted.lacks))
        trackers = stack.enter_context(tracking(chosen.log, chosen.results))
        records = computed(wanted, Store(chosen.results), shown_here(quiet=not progress), trackers)
    store = Store(chosen.results)
    everything = store.read()[0]
    write_tables(store.folder, everything, [wanted.preset.name] if wanted.preset else [])
    keep_names(store, everything, tables_of(everything))
    return Results(store.folder, records)


def _each(samplers: Samplers | None) -> list[str | Sampler]:
    if samplers is None:
        return []
    several = isinstance(samplers, Iterable) and not isinstance(samplers, str | Sampler)
    return list(samplers) if several else [samplers]  # type: ignore[list-item, arg-type]


def _name_of(sampler: str | Sampler) -> str:
    """Return a sampler's name as the command line has it.

    Raises:
        UsageError: if it is neither a name nor a sampler.
    """
    if isinstance(sampler, str):
        return sampler
    if not isinstance(sampler, Sampler):
        what = getattr(sampler, "__name__", type(sampler).__name__)
        raise UsageError(f"{what} is no sampler: give a name, or mark the function with @bench.sampler")
    return sampler.alias or sampler.spec


def _stay_here(options: argparse.Namespace, objects: bool) -> None:
    """Draw in this process where nothing else was asked for: a script may have no guard for others.

    Raises:
        UsageError: if objects are to be drawn in other processes.
    """
    several = "," in options.device
    elsewhere = several or options.isolate or options.executor not in (None, "serial")
    if objects and elsewhere:
        raise UsageError(
            "an object cannot go to another process: give one device and no executor; or a model as"
            " FILE.py:FUNCTION, and samplers in a plugin file"
        )
    if not elsewhere and options.executor is None:
        options.isolate = False


def _file_of(model: str | None) -> list[Path]:
    file, colon, _ = (model or "").partition(".py:")
    return [Path(f"{file}.py")] if colon else []


_used: dict[Path, str] = {}
"""Hashes of the files that were imported for earlier sweeps of this process."""


def _refuse_changed(file: Path) -> None:
    """Raise UsageError where a file was changed after it was imported: its old code would run."""
    if not file.is_file():
        return  # what imports it says so
    files = used_files(file.resolve(), file.resolve().parent)
    now = " ".join(file_digest(one, "sha256") for one in files)
    if _used.setdefault(file.resolve(), now) != now:
        raise _changed(file)


def _changed(file: Path) -> UsageError:
    return UsageError(f"{file} was changed after this process imported it; start Python again")
