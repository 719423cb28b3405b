"""Tell what a results folder holds: trials done, failed, skipped, under way, and files that are damaged."""

from __future__ import annotations

import argparse
from collections import Counter

from bench.commands.options import print_json, warn
from bench.errors import UsageError, one_line
from bench.records.store import Store


def execute(options: argparse.Namespace) -> int:
    """Print the counts and every failure."""
    if not options.results.is_dir():
        raise UsageError(f"there is no folder {options.results}; --results names that of a run")
    store = Store(options.results)
    records, unreadable = store.read()
    counts = Counter(record.status for record in records)
    under_way = {path.parent.name.partition("-")[0] for path in store.blocks.glob("*/*.npz")}
    failed = [record for record in records if record.status == "failed"]
    if options.json:
        failures = [{"key": r.key, "label": r.sampler.label, "message": r.message} for r in failed]
        damaged = [str(damage.path) for damage in unreadable]
        print_json({**counts, "under way": len(under_way), "failures": failures, "damaged": damaged})
    else:
        parts = [f"{counts[status]} {status}" for status in ("done", "skipped", "failed")]
        print(f"{options.results}: {', '.join(parts)}, {len(under_way)} under way, {len(unreadable)} damaged")
        for record in failed:
            print("  " + one_line(f"failed: {record.title}, {record.stage}: {record.message}"))
    for damage in unreadable:
        warn(damage)
    return 1 if failed or unreadable else 0
