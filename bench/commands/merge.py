"""Put the results of several machines into one folder.

Records that agree are copied once; two records of one trial that differ are named with the fields that do,
and the one that is there already stays. Exit status 1 where there are such conflicts.
"""

from __future__ import annotations

import argparse

from bench.commands.options import print_json, read_records, warn
from bench.errors import UsageError
from bench.records.merging import merge


def execute(options: argparse.Namespace) -> int:
    """Merge, and tell what was done."""
    for folder in options.folders:
        if folder.resolve() == options.results.resolve():
            raise UsageError(f"{folder} is the folder to merge into; leave it out: what it holds stays there")
        read_records(folder)
    done = merge(options.folders, options.results)
    if options.json:
        print_json(
            {
                "copied": len(done.copied),
                "same": len(done.same),
                "replaced": len(done.replaced),
                "conflicts": [vars(conflict) for conflict in done.conflicts],
                "damaged": [str(damage.path) for damage in done.unreadable],
            }
        )
    else:
        parts = [f"{len(done.copied)} copied", f"{len(done.same)} there already"]
        parts += [f"{len(done.replaced)} failures replaced"] * bool(done.replaced)
        parts += [f"{len(done.conflicts)} in conflict"] * bool(done.conflicts)
        print(f"{options.results}: {', '.join(parts)}")
    for conflict in done.conflicts:
        warn(conflict)
    for damage in done.unreadable:
        warn(f"record {damage.path} cannot be read ({damage.reason}); it was left where it is")
    return 1 if done.conflicts or done.unreadable else 0
