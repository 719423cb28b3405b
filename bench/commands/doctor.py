"""Tell what is here and what is missing: versions, devices, caches, scores, extras.

What is missing comes with the command that gets it. Exit status 1 where something is broken: a package that
is needed, a plugin, a folder that cannot be written, a file that is there and is not what it should be. What
nobody has to have is no fault.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import Requirement
from rich.table import Table
from rich.text import Text

from bench.catalog import own_version
from bench.commands.options import console, print_json
from bench.commands.usage import PROGRAM
from bench.commands.verbosity import is_verbose
from bench.data.celeba import find_celeba
from bench.data.cifar10 import find_cifar
from bench.data.sets import DATA_VARIABLE
from bench.errors import BenchError, one_line, sentence_of, users_code
from bench.files.source import ROOT
from bench.metrics.reference import cache_folder
from bench.metrics.space import Shape, get_space
from bench.metrics.weights import FILES
from bench.plugins.loading import registry

SHAPES: Sequence[Shape] = ((3, 32, 32), (1, 12, 12))
"""Shapes of images that a feature space is asked for, (C, H, W): one that takes either is here."""

State = Literal["ok", "missing", "broken"]
SIGNS = {"ok": ("ok", "green"), "missing": ("--", "yellow"), "broken": ("!!", "bold red")}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        part: what it belongs to: ``packages``, ``devices``, ``folders``, ``data``, ``scores``, ``extras`` or
            ``plugins``.
        name: what it is.
        state: ``missing`` is what nobody has to have.
        told: its version, its place, or what it is for.
        fault: what is wrong or missing; empty where nothing is.
        command: what gets it; empty where nothing has to be done or no one command does it.
    """

    part: str
    name: str
    state: State
    told: str
    fault: str = ""
    command: str = ""


def execute(options: argparse.Namespace) -> int:
    """Look, print what was found, and return 1 where something is broken."""
    findings = [*_packages(), *_devices(), *_folders(), *_data(), *_scores(), *_plugins()]
    broken = [one for one in findings if one.state == "broken"]
    if options.json:
        print_json({"ok": not broken, "findings": [asdict(one) for one in findings]})
    else:
        for part, found in groupby(findings, key=lambda one: one.part):
            _print(part, list(found))
        missing = sum(one.state == "missing" for one in findings)
        print(f"{len(broken)} broken, {missing} not here")
    return 1 if broken else 0


def _packages() -> Iterator[Finding]:
    """Yield the versions of Python, the project and all that it needs, then the extras."""
    yield Finding("packages", "python", "ok", f"{platform.python_version()} in {sys.prefix}")
    yield Finding("packages", PROGRAM, "ok", f"{own_version() or 'a bare checkout'} in {ROOT}")
    try:
        lines = importlib.metadata.requires(PROGRAM) or []
    except importlib.metadata.PackageNotFoundError:
        return
    requirements = [Requirement(line) for line in lines]
    for one in requirements:
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            version, fault = _version(one)
            command = f"pip install '{one.name}{one.specifier}'" if fault else ""
            yield Finding("packages", one.name, "broken" if fault else "ok", version, fault, command)
    for extra in importlib.metadata.metadata(PROGRAM).get_all("Provides-Extra") or []:
        wanted = [one for one in requirements if one.marker and _is_for(one, extra)]
        told = [(one.name, *_version(one)) for one in wanted if one.name != PROGRAM]
        there = ", ".join(f"{name} {version}" for name, version, fault in told if not fault)
        fault = ", ".join(f"{name} {fault}" for name, _, fault in told if fault)
        command = f"pip install '{PROGRAM}[{extra}]'" if fault else ""
        yield Finding("extras", extra, "missing" if fault else "ok", there, fault, command)


def _is_for(requirement: Requirement, extra: str) -> bool:
    """Return whether an extra, and nothing else, asks for a package."""
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _version(requirement: Requirement) -> tuple[str, str]:
    """Return (version of a package, what is wrong with it); either is empty where there is none."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return "", "is not installed"
    fits = requirement.specifier.contains(version, prereleases=True)
    return version, "" if fits else f"{version} is not {requirement.specifier}"


def _devices() -> Iterator[Finding]:
    threads = torch.get_num_threads()
    yield Finding("devices", "cpu", "ok", f"{threads} threads of {os.cpu_count()} cores")
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        why = f"none found, torch is built for {built}" if built else "torch is built without it"
        yield Finding("devices", "cuda", "missing", "", why)
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield Finding("devices", f"cuda:{index}", "ok", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB")


def _folders() -> Iterator[Finding]:
    """Yield the folders that are written to, each tried."""
    places = {"statistics and weights": cache_folder(), "torch.hub": Path(torch.hub.get_dir())}
    for name, folder in places.items():
        fault = _unwritable(folder)
        broken = bool(fault) and name != "torch.hub"  # which is only read
        command = "export SAMPLER_BENCH_CACHE=FOLDER" if broken else ""
        told = f"{folder}, {_size(folder)}"
        yield Finding("folders", name, "broken" if broken else "ok", told, fault if broken else "", command)


def _unwritable(folder: Path) -> str:
    """Return why nothing can be written below a folder; empty where it can, and where it can be made."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return ""
    except OSError as error:
        return f"cannot be written: {error.strerror}"


def _size(folder: Path) -> str:
    """Return the size of a folder's files in words."""
    if not folder.is_dir():
        return "not there yet"
    sizes = [place.stat().st_size for place in folder.rglob("*") if place.is_file()]
    return f"{len(sizes):,} files, {sum(sizes) / 2**20:,.1f} MiB"


def _data() -> Iterator[Finding]:
    """Yield the published image sets that models are scored against."""
    root = Path(os.environ.get(DATA_VARIABLE) or "data")
    for name, find, command in (
        ("cifar10", find_cifar, f"{PROGRAM} fetch cifar10"),
        ("celeba64", find_celeba, ""),
    ):
        try:
            found = find(root)
        except BenchError as error:
            yield Finding("data", name, "broken", f"in {root.resolve()}", one_line(str(error)))
            continue
        if found:
            yield Finding("data", name, "ok", f"in {root.resolve()}")
        else:
            fault = f"not in {root.resolve()}; {DATA_VARIABLE} names another folder"
            yield Finding("data", name, "missing", "", fault, command)


def _scores() -> Iterator[Finding]:
    """Yield every feature space with the scores that are made in it; the space is really made."""
    metrics = sorted(registry().metrics.values(), key=lambda metric: metric.space)
    for space, members in groupby(metrics, key=lambda metric: metric.space):
        error = _error(space)
        told = ", ".join(metric.name for metric in members)
        fault = "" if error is None else one_line(sentence_of(error))
        command = _command(fault)
        state: State = "ok" if error is None else "missing"
        if error is not None and (not isinstance(error, BenchError) or _is_given(command)):
            state = "broken"
        yield Finding("scores", space, state, told, fault, command)


def _error(space: str) -> BaseException | None:
    """Return why a feature space cannot be had, for images of any shape; None where it can."""
    errors = []
    for shape in SHAPES:
        try:
            get_space(space, shape)
            return None
        except users_code() as error:  # a plugin's space may raise anything
            errors.append(error)
    return errors[0]


def _is_given(command: str) -> bool:
    """Return whether the weight file that a command gets is there, or a variable names one."""
    file = FILES.get(command.removeprefix(f"{PROGRAM} fetch "))
    return file is not None and (
        bool(os.environ.get(file.variable)) or any(place.is_file() for place in file.places())
    )


def _command(fault: str) -> str:
    """Return the command that a sentence names, empty where it names none."""
    found = re.search(rf"`((?:{PROGRAM}|pip) [^`]*)`|(pip install (?:'[^']+'|[\w.=\[\]-]+))", fault)
    return next(filter(None, found.groups()), "") if found else ""


def _plugins() -> Iterator[Finding]:
    """Yield what installed plugins could not do."""
    failures = registry().failures
    for one in failures:
        yield Finding("plugins", one.plugin, "broken", "", f"failed at {one.stage}: {one.message}")
    offered = {origin.plugin for origin in registry().samplers.origins.values()} - {PROGRAM}
    for name in sorted(offered):
        yield Finding("plugins", name, "ok", "offers samplers")


def _print(part: str, findings: Sequence[Finding]) -> None:
    terminal = console()
    shown = Table(title=part, title_justify="left", title_style="bold", box=None, show_header=False)
    shown.add_column(no_wrap=True)
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for one in findings:
        sign, style = SIGNS[one.state]
        short = part == "scores" and one.state == "missing" and bool(one.command) and not is_verbose()
        fault = "" if short else one.fault  # the command says enough
        told = "\n".join(filter(None, [one.told, fault, one.command and f"$ {one.command}"]))
        shown.add_row(Text(sign, style), one.name, told)
    terminal.print(shown)
