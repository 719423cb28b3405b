"""Options and output that several verbs share."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bench.commands.verbosity import say
from bench.diffusion.learned import is_learned
from bench.diffusion.sampling import Sampler, get_sampler
from bench.diffusion.spacing import check_spacing, count_listed
from bench.errors import UnknownNameError, UsageError, one_line
from bench.files.atomic import readable
from bench.plugins.loading import PluginFailure, Registry, registry
from bench.records.record import Record
from bench.records.store import Store
from bench.report.tables.choice import Choice, parse_labels
from bench.report.tables.table import Table
from bench.spec import is_number, refuse_repeated


def load_plugins(files: Iterable[Path]) -> Registry:
    """Load plugin files into the registry and return it; what plugins could not do is told.

    The command line ends with status 1 where there is any such failure, whatever the verb.
    """
    for file in files:
        registry().load_file(file)
    report_plugin_failures(registry().failures)
    return registry()


def parse_samplers(specs: Iterable[str], clip: str | None = None) -> tuple[Sampler, ...]:
    """Return the samplers named by ``all``, sets or specs, each once, in order.

    Args:
        specs: the names.
        clip: how every one that can clip x_0 is to do it; None leaves each as it is.

    Raises:
        UsageError: if a sampler or a parameter is unknown, or a rule has no such way to clip.
    """
    found: dict[str, Sampler] = {}
    for spec in specs:
        chosen = [_clipped(one, clip) for one in _named(spec)]
        for sampler in chosen:
            known = found.setdefault(sampler.spec, sampler)
            if known.alias != sampler.alias and spec != "all":
                given = spec if len(chosen) == 1 else sampler.label
                say(f"{given} and {known.label} are one rule: one row")
    return tuple(found.values())


def _clipped(sampler: Sampler, clip: str | None) -> Sampler:
    return sampler.with_(clip=clip) if clip is not None and "clip" in sampler.parameters else sampler


def _named(spec: str) -> Iterable[Sampler]:
    if spec == "all":
        sets = [one for each in registry().sets.values() for one in each.samplers]
        return [*registry().default_samplers.values(), *map(get_sampler, sets)]
    if spec in registry().sets.entries:
        return [get_sampler(one) for one in registry().sets.entries[spec].samplers]
    return [parse_sampler(spec)]


def parse_sampler(spec: str) -> Sampler:
    """Return the sampler that a text names, see `bench.get_sampler`.

    Raises:
        UsageError: if there is none, or a parameter is given twice.
    """
    refuse_repeated(spec.partition(":")[2], f"sampler {spec!r}")
    return get_sampler(spec)


def steps_of_sets(specs: Iterable[str]) -> tuple[int, ...]:
    """Return the numbers of steps of the sets named, ascending; none where anything else is named too."""
    known, specs = registry().sets.entries, list(specs)
    if any(spec not in known for spec in specs):
        return ()
    return tuple(sorted({steps for spec in specs for steps in known[spec].steps}))


def parse_metrics(text: str) -> tuple[str, ...]:
    """Return the names in ``fid,kid,prdc``; prdc stands for precision, recall, density and coverage.

    ``prdc_digits`` likewise stands for the four in the space ``digits``.
    """
    names: list[str] = []
    for name in text.split(","):
        family, _, space = name.strip().partition("_")
        four = ("precision", "recall", "density", "coverage") if family == "prdc" else (family,)
        names += [f"{one}_{space}" if space else one for one in four]
    return tuple(dict.fromkeys(names))


def parse_steps(text: str, option: str = "--steps") -> tuple[int, ...]:
    """Return the numbers in ``10,20,50``, ascending, each once.

    Args:
        text: what was given.
        option: to which option, for the message.

    Raises:
        UsageError: if one is not a whole number.
    """
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise UsageError(
            f"{option} takes whole numbers with commas between, as in 10,20,50, got {text!r}"
        ) from None


SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_time(text: str, option: str) -> float:
    """Return the seconds of ``90s``, ``30m``, ``2h`` or ``1h30m``.

    Args:
        text: what was given.
        option: to which option, for the message.

    Raises:
        UsageError: if it is no such time, or none at all.
    """
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)([smh])", text)
    seconds = sum(float(count) * SECONDS[unit] for count, unit in parts)
    if "".join(count + unit for count, unit in parts) != text or not seconds > 0:
        raise UsageError(f"{option} takes a time greater than 0, as in 90s, 30m or 1h30m, got {text!r}")
    return seconds


def parse_spacing(text: str) -> str:
    """Return a spacing as `bench.make_grid` reads it: as it is, or what a text file of times holds.

    Raises:
        UsageError: if the file does not hold numbers, or a rule's options are not what it takes.
    """
    path = Path(text)
    if is_learned(text) or not path.is_file():
        check_spacing(text)
        return text
    given = path.read_text(encoding="utf-8").replace("\n", ",").replace(" ", ",")
    listed = ",".join(part for part in given.split(",") if part)
    if not count_listed(listed):
        raise UsageError(f"{path} must list times, one a line or with commas between, as in 999,500,0")
    return listed


def parse_spacings(text: str) -> tuple[str, ...]:
    """Return the time grids in ``logsnr,edm:rho=5,sigma_max=40,times.txt``, each once: rules, files, times.

    What is a number or has an ``=`` continues the one before it; so ``999,500,0`` is one list of times.
    """
    found: list[str] = []
    for item in text.split(","):
        continues = found and (is_number(item) or ("=" in item and ":" not in item))
        if continues:
            found[-1] += f",{item}"
        else:
            found.append(item.strip())
    return tuple(dict.fromkeys(map(parse_spacing, found)))


def parse_shard(text: str) -> tuple[int, int]:
    """Return (I, N) of ``I/N``.

    Raises:
        UsageError: if it is no such part.
    """
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    place, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= place <= count:
        raise UsageError(f"--shard takes I/N with I from 1 to N, as in 1/4 to 4/4, got {text!r}")
    return place, count


def parse_devices(text: str) -> tuple[str, ...]:
    """Return torch devices for ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or several with commas between.

    Raises:
        UsageError: if a device is unknown or not there.
    """
    if text == "auto":
        return ("cuda:0",) if torch.cuda.is_available() else ("cpu",)
    devices = []
    for name in text.split(","):
        try:
            device = torch.device(name)
        except RuntimeError:
            raise UsageError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from None
        if device.type not in ("cpu", "cuda") and not _works(device):
            raise UsageError(f"device {name!r} is not there; use auto, cpu, cuda or cuda:N")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise UsageError(f"device {name!r} is not there: {count} CUDA devices found; use --device cpu")
        devices.append(f"cuda:{device.index or 0}" if device.type == "cuda" else str(device))
    return tuple(devices)


def _works(device: torch.device) -> bool:
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError):
        return False
    return True


def warn(sentence: object) -> None:
    """Print a sentence to standard error."""
    print(f"warning: {one_line(str(sentence))}", file=sys.stderr)


def say_remarks(remarks: Iterable[str]) -> None:
    """Print what was done to the images of a set or left out of it."""
    for remark in remarks:
        warn(remark)


def print_json(value: Any) -> None:
    """Print a value as JSON, which has no NaN and no infinity: they become null."""
    text = json.dumps(_finite(value), indent=1, ensure_ascii=False, allow_nan=False, default=str)
    print(escaped(text))


def _finite(value: Any) -> Any:
    """Return a value with None in the place of every number in it that is not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def escaped(text: str) -> str:
    """Return JSON, escaped where standard output lacks a letter: another in its place is another name."""
    if is_shown(text):
        return text
    return re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)


def is_shown(text: str) -> bool:
    """Return whether standard output has every letter of a text."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def console() -> Console:
    """Return a terminal for tables; names stand as they are given.

    It is as wide as ``COLUMNS`` says, or else as the terminal; where output goes to a file, wide.
    """
    make = partial(Console, highlight=False, markup=False, emoji=False)
    made = make()
    return made if made.is_terminal or os.environ.get("COLUMNS", "").isdigit() else make(width=200)


def read_records(folder: Path, models: Iterable[str] = ()) -> tuple[list[Record], bool]:
    """Return (records, whether all could be read), with a warning for each file that could not.

    Raises:
        UsageError: if there are none.
    """
    records, unreadable = Store(folder).read()
    for damage in unreadable:
        warn(damage)
    wanted = set(models)
    chosen = [record for record in records if not wanted or record.trial.model in wanted]
    if not chosen:
        what = f"no records of {', '.join(sorted(wanted))}" if wanted else "no records"
        raise UsageError(
            f"{what} in {folder}; `sampler-bench run` makes them, --results names another folder"
        )
    return chosen, not unreadable


def read_choice(options: argparse.Namespace, tables: Iterable[Table]) -> Choice:
    """Return what ``--rows``, ``--label``, ``--title`` and ``--no-title`` choose of some tables.

    Raises:
        UsageError: if a label is given to no row.
    """
    return Choice(options.rows, parse_labels(options.label, tables), title_of(options))


def title_of(options: argparse.Namespace) -> str | None:
    """Return the title that was asked for, empty for none; None where nothing was said of it."""
    title: str | None = "" if options.no_title else options.title
    return title if title is None else readable(title)


def refuse_unknown_metric(records: Iterable[Record], metric: str | None) -> None:
    """Raise UnknownNameError where ``--metric`` was given and is no score of any trial."""
    known = {name for record in records for name in record.trial.metrics}
    if metric is not None and metric not in known:
        raise UnknownNameError("metric", metric, known)


def say_skipped(records: Iterable[Record]) -> None:
    """Print the trials that a sampler or variance does not fit, with the reason."""
    for record in records:
        if record.status == "skipped":
            print(f"skipped: {record.title}: {record.message}")


def report_plugin_failures(failures: Iterable[PluginFailure]) -> None:
    """Print what plugins could not do."""
    for failure in failures:
        warn(f"plugin {failure.plugin} failed at {failure.stage}: {failure.message}")
