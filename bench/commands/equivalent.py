"""Tell whether samplers are one rule: their trajectories from the same start and noise, step by step."""

from __future__ import annotations

import argparse

from bench.commands.options import (
    load_plugins,
    parse_spacing,
    parse_steps,
    print_json,
    report_plugin_failures,
)
from bench.diffusion.equivalence import likenesses
from bench.diffusion.sampling import get_sampler
from bench.errors import UsageError
from bench.plugins.loading import registry


def execute(options: argparse.Namespace) -> int:
    """Print a line for every two samplers and S; 1 where two differ."""
    load_plugins(options.plugin)
    if len(options.samplers) < 2:
        raise UsageError("give two samplers or more to compare, as in: equivalent dpmpp:order=1 ddim")
    chosen = [get_sampler(spec) for spec in options.samplers]
    found = likenesses(chosen, parse_steps(options.steps), parse_spacing(options.spacing))
    if options.json:
        print_json([{**vars(one), "same": one.same, "verdict": one.verdict} for one in found])
    else:
        for one in found:
            print(f"{one.one} and {one.other}, S={one.steps}: {one.verdict}")
            if options.each:
                print("  " + " ".join(f"{gap:.0e}" for gap in one.differences))
    differ = any(not one.same for one in found)
    return int(report_plugin_failures(registry().failures) or differ)
