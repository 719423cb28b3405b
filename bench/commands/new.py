"""Write a file to begin with: a sampler, a model or a score that works and passes its check as it is."""

from __future__ import annotations

import argparse
import ast
import keyword
import re
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from bench.errors import UsageError
from bench.plugins.loading import registry

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


_NEXT = {
    "sampler": "sampler-bench check @FILE@",
    "model": "sampler-bench run --model @FILE@:@IDENT@ --reference path/to/images --steps 10 --n 100",
    "metric": "sampler-bench run --plugin @FILE@ --metrics @METRIC@ --samplers ddim --steps 10 --n 100",
}
"""What to do with a file."""


def execute(options: argparse.Namespace) -> int:
    """Write the files and say what to do with them."""
    kind, name = options.kind, options.name
    if not _NAME.fullmatch(name):
        raise UsageError(f"the name must be small letters, digits and hyphens, as my-rule, got {name!r}")
    if _taken(kind, name):
        raise UsageError(f"{name!r} is a name that Python has or the file uses; choose another name")
    if name in getattr(registry(), f"{kind}s").entries:
        raise UsageError(f"there is a {kind} {name!r} already; choose another name")
    texts = _package(kind, name) if options.package else _file(kind, name)
    folder = Path(name) if options.package else Path()
    present = [folder / path for path in texts if (folder / path).exists()]
    if present:
        raise UsageError(f"{present[0]} is there already; nothing was written: choose another name")
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
        print(folder / path)
    package = f"cd {folder} && pip install -e .[test] && python -m pytest"
    print(f"next: {package if options.package else _filled(_NEXT[kind], kind, name)}")
    return 0


def _taken(kind: str, name: str) -> bool:
    """Return whether Python has a name, or the file itself uses it: a function so called would hide that."""
    ident = name.replace("-", "_")
    if keyword.iskeyword(ident) or ident in sys.stdlib_module_names:
        return True
    used = {
        node.id
        for node in ast.walk(ast.parse(_made(f"{kind}.py", kind, "a-1")))
        if isinstance(node, ast.Name)
    }
    return ident in used or ident in ("bench", "torch", "numpy")


def _filled(text: str, kind: str, name: str) -> str:
    module = name.replace("-", "_")
    words = {
        "NAME": name,
        "IDENT": module,
        "FILE": f"{module}.py",
        "METRIC": f"fd_{module}",
        "KIND": kind,
        "CHECK": f" --check-sampler {module}.py" if kind == "sampler" else "",
    }
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text


def _made(template: str, kind: str, name: str) -> str:
    path = files("bench") / "commands" / "templates" / f"{template}.txt"
    return _filled(path.read_text(encoding="utf-8"), kind, name)


def _file(kind: str, name: str) -> Mapping[str, str]:
    return {f"{name.replace('-', '_')}.py": _made(f"{kind}.py", kind, name)}


def _package(kind: str, name: str) -> Mapping[str, str]:
    module = name.replace("-", "_")
    return {
        f"{module}.py": _made(f"{kind}.py", kind, name),
        "pyproject.toml": _made("pyproject.toml", kind, name),
        f"tests/test_{module}.py": _made(f"test_{kind}.py", kind, name),
        ".github/workflows/tests.yml": _made("workflow.yml", kind, name),
        "README.md": _made("README.md", kind, name),
    }
