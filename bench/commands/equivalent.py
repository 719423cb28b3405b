"""Tell whether samplers are one rule: their trajectories from the same start and noise, step by step."""

from __future__ import annotations

import argparse

from bench.commands.options import (
    load_plugins,
    parse_sampler,
    parse_spacing,
    parse_steps,
    print_json,
)
from bench.diffusion.equivalence import likenesses
from bench.errors import UsageError


def execute(options: argparse.Namespace) -> int:
    """Print a line for every two samplers and S; 1 where two differ."""
    load_plugins(options.plugin)
    if len(options.samplers) < 2:
        raise UsageError("give two samplers or more to compare, as in: equivalent dpmpp:order=1 ddim")
    chosen = [parse_sampler(spec) for spec in options.samplers]
    found = likenesses(chosen, parse_steps(options.steps), parse_spacing(options.spacing))
    if options.json:
        print_json(
            [{**vars(one), "taken": one.taken, "same": one.same, "verdict": one.verdict} for one in found]
        )
    else:
        for one in found:
            other = "" if one.taken == one.steps else f" ({options.spacing} takes {one.taken} steps)"
            print(f"{one.one} and {one.other}, S={one.steps}{other}: {one.verdict}")
            if options.each:
                print("  " + " ".join(f"{gap:.0e}" for gap in one.differences))
    differ = any(not one.same for one in found)
    return int(differ)
