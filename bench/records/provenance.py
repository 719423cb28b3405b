"""Where a number comes from: hashes that make a record stale, and the environment it was made in."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bench.diffusion.grid import Grid
from bench.files.atomic import readable
from bench.files.source import ROOT
from bench.records.record import Environment

PACKAGES = ("sampler-bench", "torch", "numpy", "torch-fidelity")


_arguments: Sequence[str] = ()


def set_command(arguments: Sequence[str]) -> None:
    """Set the arguments that records name as their command, where the command line leaves some to a file."""
    global _arguments
    _arguments = tuple(arguments)


def short_hash(fields: Mapping[str, Any]) -> str:
    """Return a hash of plain values, 12 hex digits."""
    return hashlib.sha256(repr(sorted(fields.items())).encode()).hexdigest()[:12]


def grid_hash(grid: Grid) -> str:
    """Return a hash of a grid's time steps and of alpha_bar at each, 12 hex digits."""
    return short_hash({"steps": [(step.t, step.alpha_bar, step.alpha_bar_next) for step in grid]})


def environment(device: str) -> Environment:
    """Return what a record says of the machine, the versions and the command."""
    commit, dirty = _commit()
    return Environment(
        versions={"python": platform.python_version(), **_versions()},
        device_name=device_name(device),
        threads=torch.get_num_threads(),
        commit=commit,
        dirty=dirty,
        command=readable(_asked_by.get() or shlex.join(["sampler-bench", *(_arguments or sys.argv[1:])])),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


_asked_by: ContextVar[str] = ContextVar("asked_by", default="")


@contextmanager
def asked_by(command: str) -> Iterator[None]:
    """Have records say that a command made them which is not the command line of this process."""
    token = _asked_by.set(command)
    try:
        yield
    finally:
        _asked_by.reset(token)


@functools.cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    return versions


def device_name(device: str) -> str:
    """Return the name of a GPU, or of the processor with its cores."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return _processor()


@functools.cache
def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    lines = [line for line in text.splitlines() if line.startswith("model name")]
    names = [line.partition(":")[2].strip() for line in lines]
    return f"{names[0]} ({len(names)} cores)" if names else platform.machine()


@functools.cache
def _commit() -> tuple[str, bool | None]:
    """Return (commit, whether the checkout this runs from has changes); none elsewhere."""
    if not (ROOT / ".git").exists():
        return "", None
    try:
        return _git(ROOT, "rev-parse", "HEAD"), has_changes(ROOT)
    except (OSError, subprocess.CalledProcessError):
        return "", None


def has_changes(root: Path) -> bool:
    """Return whether a checkout's tracked files differ from its commit; results, which it makes, apart."""
    tracked = ("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)results")
    return bool(_git(root, *tracked))


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
