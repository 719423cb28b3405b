"""Where a number comes from: hashes that make a record stale, and the environment it was made in."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import inspect
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("sampler-bench", "torch", "numpy", "torch-fidelity")
NUMERICS = ("diffusion.py", "grid.py", "images.py", "noise.py", "schedule.py", "trial.py")
"""Files of this package that every sample depends on."""

SCORING = ("stats.py", "metrics/frechet.py", "metrics/groups.py", "metrics/moments.py")
"""Files of this package that every score depends on, whatever its metric imports."""


@functools.cache
def numerics_hash() -> str:
    """Return a hash of the source that every sample depends on, 16 hex digits."""
    digest = hashlib.sha256()
    for name in NUMERICS:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def scoring_hash(metric: type) -> str:
    """Return a hash of the source that a metric's numbers depend on, 16 hex digits.

    It covers ``SCORING``, the metric's own file and every file of ``bench.metrics`` that this imports,
    directly or through another of them.
    """
    folder = Path(__file__).parent
    found = [folder / name for name in SCORING]
    own = inspect.getsourcefile(metric)
    waiting = [Path(own).resolve()] if own else []
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.append(file)
            waiting += sorted(_imported_metrics(file.read_bytes(), folder))
    digest = hashlib.sha256()
    for file in found:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _imported_metrics(source: bytes, folder: Path) -> set[Path]:
    """Return the files of ``bench.metrics`` that a module's source names in its import statements."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    known = {f"bench.metrics.{file.stem}": file for file in (folder / "metrics").glob("*.py")}
    known["bench.metrics"] = folder / "metrics" / "__init__.py"
    return {known[name] for name in names & known.keys()}


def short_hash(fields: Mapping[str, Any]) -> str:
    """Return a hash of plain values, 12 hex digits."""
    return hashlib.sha256(repr(sorted(fields.items())).encode()).hexdigest()[:12]


def environment(device: str) -> dict[str, Any]:
    """Return what a record says of the machine, the versions and the command."""
    commit, dirty = _commit()
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "device_name": _device_name(device),
        "threads": torch.get_num_threads(),
        "commit": commit,
        "dirty": dirty,
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@functools.cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    return versions


def _device_name(device: str) -> str:
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
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return "", None
    try:
        return _git(root, "rev-parse", "HEAD"), has_changes(root)
    except (OSError, subprocess.CalledProcessError):
        return "", None


def has_changes(root: Path) -> bool:
    """Return whether a checkout's tracked files differ from its commit; results, which it makes, apart."""
    tracked = ("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)results")
    return bool(_git(root, *tracked))


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
