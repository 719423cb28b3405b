"""Print BibTeX of what a results folder used."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from bench.catalog import own_version
from bench.commands.options import read_records
from bench.diffusion.spacing import SPACINGS
from bench.plugins.loading import registry
from bench.published.bibliography import cited
from bench.records.record import Record


def execute(options: argparse.Namespace) -> int:
    """Print an entry for the benchmark, and one for every paper."""
    records, whole = read_records(options.results)
    print(f"@software{{sampler-bench,\n  title = {{sampler-bench}},\n  version = {{{own_version()}}},\n}}")
    for entry in cited(_sources(records)):
        print(f"\n{entry}")
    return 0 if whole else 1


def _sources(records: Sequence[Record]) -> Iterator[str]:
    """Yield the sources of samplers as records keep them, and those of time grids and scores."""
    metrics, spacings = registry().metrics.entries, SPACINGS.entries
    for record in records:
        yield record.sampler.source
    for name in sorted({record.trial.spacing.partition(":")[0] for record in records} & set(spacings)):
        yield spacings[name].__doc__ or ""
    for name in sorted({name for record in records for name in record.trial.metrics} & set(metrics)):
        yield type(metrics[name]).__doc__ or ""
