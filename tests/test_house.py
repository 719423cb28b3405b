"""How the code is kept: names that lead where they say, functions that somebody calls, whole sentences."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import bench
import models

ROOT = Path(bench.__file__).parents[1]
PACKAGES = ("bench", "models", "samplers")
SOURCES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
"""The project's own files, of the checkout or of the installed package."""

OLD_PATHS = [
    "bench.cards:load_model",
    "bench.data:load_images",
    "bench.diffusion:predict_x0",
    "bench.metrics:frechet_distance",
    "bench.plugins:hookimpl",
    "bench.published:published_frame",
    "bench.stats:compare",
]
"""Import paths of earlier versions that documents and plugins use."""


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def test_every_public_name_is_there_and_no_other():
    assert len(set(bench.__all__)) == len(bench.__all__)
    assert all(hasattr(bench, name) for name in bench.__all__)
    stub = parsed(Path(bench.__file__).with_suffix(".pyi"))
    imported = {a.asname or a.name for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert imported == set(bench.__all__)


def test_no_module_bears_the_name_of_a_public_function():
    modules = {module.name for module in pkgutil.iter_modules(bench.__path__)}
    assert not modules & set(bench.__all__)
    assert len([m for m in pkgutil.iter_modules(bench.__path__) if not m.ispkg]) <= 9


@pytest.mark.parametrize("path", OLD_PATHS)
def test_old_import_paths_lead_to_the_same(path):
    module, _, name = path.partition(":")
    assert getattr(importlib.import_module(module), name) is getattr(bench, name)


def test_every_public_function_has_a_caller_outside_the_tests():
    trees = {path: parsed(path) for path in SOURCES}
    defined = {
        (path, node.name): {getattr(d, "id", getattr(d, "attr", "")) for d in node.decorator_list}
        for path, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    used = {*bench.__all__, *models.__all__}
    for tree in trees.values():
        for node in ast.walk(tree):
            used |= {node.id} if isinstance(node, ast.Name) else set()
            used |= {node.attr} if isinstance(node, ast.Attribute) else set()
            if isinstance(node, ast.Constant) and isinstance(node.value, str):  # "models.digits:make_network"
                used |= set(re.findall(r":(\w+)", node.value)) if len(node.value) < 80 else set()
    hooks = {"hookimpl", "hookspec"}
    lone = [
        f"{path.name}:{name}" for (path, name), by in defined.items() if name not in used and not by & hooks
    ]
    lone = [one for one in lone if not one.endswith(":execute")]  # of a verb: the command line resolves it
    assert lone == []


ENTRY = re.compile(r"^\s+[\w*]+(, [\w*]+)*: (of|by|likewise|theirs)\b", re.IGNORECASE)
FIRST = re.compile(r"^(of|by|likewise|theirs)\b", re.IGNORECASE)


def test_docstrings_begin_with_what_a_thing_is():
    """An entry such as ``seed: of the noise`` leaves the reader to find the noun."""
    found = []
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                text = str(node.value.value)
                found += [f"{path.name}: {line}" for line in text.splitlines() if ENTRY.match(line)]
                found += [f"{path.name}: {text}"] if FIRST.match(text) else []
    assert found == []
