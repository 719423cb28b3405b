"""Make every table, plot and report of results folders again from their records, and compare.

Tables and reports must be equal to the bit, plots to the eye. Exit status 1 with the differing files named.
"""

from __future__ import annotations

import argparse
import sys

from bench.commands.options import print_json
from bench.report.verify import results_below, verify


def execute(options: argparse.Namespace) -> int:
    """Verify, and name what differs."""
    checked = [verify(found) for folder in options.folders for found in results_below(folder)]
    if options.json:
        print_json(
            [
                {
                    "folder": str(one.folder),
                    "records": one.records,
                    "files": one.files,
                    "findings": [{"path": str(f.path), "reason": f.reason} for f in one.findings],
                }
                for one in checked
            ]
        )
    else:
        for one in checked:
            told = "are as their records make them" if not one.findings else f"{len(one.findings)} are not"
            print(f"{one.folder}: {one.files} files of {one.records} records, {told}")
    for one in checked:
        for finding in one.findings:
            print(f"error: {finding}", file=sys.stderr)
    return 1 if any(one.findings for one in checked) else 0
