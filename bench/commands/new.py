"""Write a file to begin with: a sampler, a model or a score that works and passes its check as it is."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from bench.errors import UsageError
from bench.plugins.loading import registry

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


def execute(options: argparse.Namespace) -> int:
    """Write the files and say what to do with them."""
    kind, name = options.kind, options.name
    if not _NAME.fullmatch(name):
        raise UsageError(f"the name must be small letters, digits and hyphens, as my-rule, got {name!r}")
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
    print(_hint(kind, name, folder if options.package else None))
    return 0


def _filled(template: str, kind: str, name: str) -> str:
    identifier = name.replace("-", "_")
    text = (files("bench") / "commands" / "templates" / f"{template}.txt").read_text(encoding="utf-8")
    check = f" --check-sampler {identifier}.py" if kind == "sampler" else ""
    words = {"NAME": name, "IDENT": identifier, "FILE": f"{identifier}.py", "METRIC": f"fd_{identifier}"}
    for word, value in (words | {"KIND": kind, "CHECK": check}).items():
        text = text.replace(f"@{word}@", value)
    return text


def _file(kind: str, name: str) -> Mapping[str, str]:
    return {f"{name.replace('-', '_')}.py": _filled(f"{kind}.py", kind, name)}


def _package(kind: str, name: str) -> Mapping[str, str]:
    module = name.replace("-", "_")
    texts = {
        f"{module}.py": _filled(f"{kind}.py", kind, name),
        "pyproject.toml": _filled("pyproject.toml", kind, name),
        f"tests/test_{module}.py": _filled(f"test_{kind}.py", kind, name),
        ".github/workflows/tests.yml": _filled("workflow.yml", kind, name),
        "README.md": f"# {name}\n\nA {kind} for sampler-bench: `pip install .`, `python -m bench list`.\n",
    }
    if kind == "model":  # a package offers its model by a hook, since nobody names its file
        texts[f"{module}.py"] += (
            "\n\n@hookimpl\ndef bench_models():\n"
            f'    """Offer it: `--model {name}`."""\n'
            f'    return [ModelCard("{name}", {module}, "a model of my own", None, metrics=("fd_pixels",))]\n'
        )
        texts[f"{module}.py"] = texts[f"{module}.py"].replace(
            "from bench import NoiseSchedule, from_prediction",
            "from bench import ModelCard, NoiseSchedule, from_prediction, hookimpl",
        )
    return texts


def _hint(kind: str, name: str, folder: Path | None) -> str:
    file = f"{name.replace('-', '_')}.py"
    if folder is not None:
        return f"next: cd {folder} && pip install -e .[test] && python -m pytest"
    if kind == "sampler":
        return f"next: python -m bench check {file}"
    if kind == "model":
        make = f"{file}:{name.replace('-', '_')}"
        return f"next: python -m bench run --model {make} --reference path/to/images --steps 10 --n 100"
    metric = f"fd_{name.replace('-', '_')}"
    return f"next: python -m bench run --plugin {file} --metrics {metric} --samplers ddim --steps 10 --n 100"
