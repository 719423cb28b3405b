"""Pack a results folder into one file for somebody's leaderboard, once everything in it is verified.

Equal folders give equal packs. Each file has its SHA-256 in the pack's manifest, and ``publish`` takes no
other one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.commands.options import print_json
from bench.errors import UsageError
from bench.files.digests import file_digest
from bench.records.pack import Manifest, pack
from bench.report.verify import results_below, verify


def execute(options: argparse.Namespace) -> int:
    """Verify the folder, pack it and print the digests."""
    folder: Path = options.results
    if (found := results_below(folder)) != [folder]:
        names = ", ".join(str(one) for one in found[:3])
        raise UsageError(f"{folder} holds {len(found)} results folders; a pack is of one, as {names}")
    checked = verify(folder)
    if checked.findings:
        for finding in checked.findings:
            print(f"error: {finding}", file=sys.stderr)
        print(f"error: nothing was packed: `sampler-bench verify {folder}` must pass", file=sys.stderr)
        return 1
    out: Path = options.out or Path(f"{folder.resolve().name}.zip")
    _tell(pack(folder, out), out, as_json=options.json)
    return 0


def _tell(manifest: Manifest, out: Path, *, as_json: bool) -> None:
    records = sum(path.startswith("records/") and path.endswith(".json") for path in manifest.files)
    told = {
        "pack": str(out),
        "records": records,
        "files": len(manifest.files),
        "bytes": out.stat().st_size,
        "sha256": file_digest(out),
        "digest": manifest.digest,
    }
    if as_json:
        print_json(told)
    else:
        size = told["bytes"] / 2**20 if isinstance(told["bytes"], int) else 0
        print(f"{out} ({size:.1f} MiB): {records} records, {told['files']} files, each with its digest")
        print(f"  sha256 of the pack   {told['sha256']}")
        print(f"  digest of the files  {told['digest']}")
