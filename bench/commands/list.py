"""List what can be used: samplers, sets, models, spacings, metrics, executors, observers, with origin."""

from __future__ import annotations

import argparse
from typing import Any

from rich.table import Table

from bench.catalog import Catalog
from bench.commands.options import (
    console,
    load_plugins,
    print_json,
)
from bench.commands.usage import KINDS
from bench.plugins.loading import Registry

NARROW = 120
"""Letters of a terminal below which the other columns make room for parameters that stand whole."""


def execute(options: argparse.Namespace) -> int:
    """Print the lists."""
    registry = load_plugins(options.plugin)
    lists = {kind: _entries(registry, kind) for kind in KINDS if options.kind in (None, kind)}
    if options.json:
        print_json({**lists, "failures": [vars(failure) for failure in registry.failures]})
    else:
        for kind, entries in lists.items():
            _print(kind, entries)
    return 0


def _entries(registry: Registry, kind: str) -> list[dict[str, Any]]:
    catalog: Catalog[Any] = getattr(registry, kind)
    found = []
    for name in catalog:
        origin = catalog.origins[name]
        facts = _facts(kind, catalog.entries[name])
        found.append({"name": name, **facts, "plugin": origin.plugin, "version": origin.version})
    return found


def _facts(kind: str, entry: Any) -> dict[str, Any]:
    if kind == "samplers":
        given = ", ".join(f"{key}={value}" for key, value in entry.parameters.items())
        given = given if entry.alias is None else f"{entry.name}: {given}"
        return {"parameters": given, "order": entry.order, "source": entry.source}
    if kind == "sets":
        steps = ", ".join(map(str, entry.steps))
        return {"summary": entry.summary, "samplers": " ".join(entry.samplers), "steps": steps}
    if kind == "models":
        return {"summary": entry.summary, "metrics": ", ".join(entry.metrics) or "by the images' shape"}
    if kind == "metrics":
        target = getattr(entry, "target", None)
        better = "higher" if entry.higher_is_better else "lower" if target is None else f"near {target}"
        return {"feature space": entry.space, "better": better}
    return {"summary": (entry.__doc__ or "").strip().partition("\n")[0]}


def _print(kind: str, entries: list[dict[str, Any]]) -> None:
    shown = console()
    table = Table(title=kind, title_justify="left", title_style="bold")
    for name in [key for key in entries[0] if key != "version"] if entries else ["none"]:
        told = [] if name != "parameters" else " ".join(entry[name] for entry in entries).split()
        longest = max(map(len, told), default=None) if shown.width < NARROW else None
        table.add_column(name, overflow="fold", width=longest)
    for entry in entries:
        plugin = f"{entry['plugin']} {entry['version']}".strip()
        cells = [str(value) for key, value in entry.items() if key not in ("plugin", "version")]
        table.add_row(*cells, plugin)
    shown.print(table)
