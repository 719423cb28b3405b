"""Test whether samplers keep the contract, and measure their true order on data whose answer is known.

``check mine.py`` takes every sampler the file registers, ``check ddim:eta=0.5`` a sampler by name.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.commands.options import load_plugins, parse_sampler, print_json, report_plugin_failures
from bench.diffusion.conformance import Clause, badge, check_sampler
from bench.diffusion.sampling import Sampler
from bench.errors import UsageError, one_line
from bench.plugins.loading import registry

MARKS = {True: "ok  ", False: "FAIL", None: "-   "}


def execute(options: argparse.Namespace) -> int:
    """Print the findings; 1 if a clause is broken."""
    told = len(load_plugins(options.plugin).failures)
    chosen = [sampler for text in options.what for sampler in samplers_of(text)]
    found = {sampler.label: check_sampler(sampler) for sampler in chosen}
    if options.json:
        print_json({label: [vars(finding) for finding in findings] for label, findings in found.items()})
    else:
        for label, findings in found.items():
            print(badge(findings) if options.badge else "\n".join(_lines(label, findings)))
    broken = any(finding.kept is False for findings in found.values() for finding in findings)
    report_plugin_failures(registry().failures[told:])
    return int(broken)


def samplers_of(text: str) -> list[Sampler]:
    """Return the samplers that a plugin file registers, or the one that a text names.

    Raises:
        UsageError: if there is none.
    """
    if not text.endswith(".py"):
        return [parse_sampler(text)]
    before = set(registry().default_samplers) | set(registry().samplers)
    registry().load_file(Path(text))
    offered = registry().default_samplers.entries | registry().samplers.entries
    new = list({one.spec: one for name, one in offered.items() if name not in before}.values())
    if not new and not registry().failures:
        raise UsageError(f"{text} registers no sampler; define bench_samplers() with @hookimpl")
    return new


def _lines(label: str, findings: list[Clause]) -> list[str]:
    lines = [label]
    for finding in findings:
        detail = f": {finding.detail}" if finding.detail else ""
        lines.append(f"  {MARKS[finding.kept]} {one_line(f'{finding.clause}{detail}')}")
    return lines
