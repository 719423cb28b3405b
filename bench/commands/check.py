"""Test whether samplers keep the contract, and measure their true order on data whose answer is known.

``check mine.py`` takes every sampler the file registers, ``check ddim:eta=0.5`` a sampler by name.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path

from bench.commands.options import load_plugins, parse_sampler, print_json, report_plugin_failures
from bench.diffusion.conformance import Clause, badge, check_sampler, nothing_measured
from bench.diffusion.sampling import Sampler
from bench.errors import UsageError, one_line
from bench.plugins.loading import registry

MARKS = {True: "ok  ", False: "FAIL", None: "-   "}


def execute(options: argparse.Namespace) -> int:
    """Print the findings; 1 if a clause is broken."""
    told = len(load_plugins(options.plugin).failures)
    with redirect_stdout(sys.stderr):  # what a rule prints is no part of the findings
        chosen = {one.spec: one for text in options.what for one in samplers_of(text)}
        measured = [(one, check_sampler(one)) for one in chosen.values()]
    labels = [one.label for one in chosen.values()]
    found = {one.spec if labels.count(one.label) > 1 else one.label: findings for one, findings in measured}
    if options.json:
        print_json({name: [vars(finding) for finding in findings] for name, findings in found.items()})
    else:
        for name, findings in found.items():
            print(badge(findings) if options.badge else "\n".join(_lines(name, findings)))
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
    path = Path(text)
    registry().load_file(path)
    found = registry().samplers_of(path)
    if not found and not registry().failures_of(path):
        raise UsageError(f"{text} registers no sampler; define bench_samplers() with @hookimpl")
    return found


def _lines(name: str, findings: list[Clause]) -> list[str]:
    lines = [name]
    for finding in findings:
        detail = f": {finding.detail}" if finding.detail else ""
        lines.append(f"  {MARKS[finding.kept]} {one_line(f'{finding.clause}{detail}')}")
    if reason := nothing_measured(findings):
        lines.append(
            one_line(f"  nothing was measured, the sampler does not run on the kit's model: {reason}")
        )
    return lines
