"""Tell everything known about a trial: ``show ddim:eta=0@20``, or a part of its key."""

from __future__ import annotations

import argparse
import math

from bench.commands.options import load_plugins, print_json, read_records
from bench.diffusion.sampling import get_sampler
from bench.errors import UnknownNameError, UsageError
from bench.records.record import Record
from bench.records.store import Store
from bench.report.page.details import facts_of


def execute(options: argparse.Namespace) -> int:
    """Print the records that match."""
    load_plugins(options.plugin)
    records, whole = read_records(options.results, options.model)
    found = matching(records, options.trial)
    found = [record for record in found if not record.continued] or found
    if options.json:
        print_json([record.to_json() for record in found])
    else:
        print("\n\n".join(describe(record, Store(options.results)) for record in found))
    return 0 if whole else 1


def matching(records: list[Record], text: str) -> list[Record]:
    """Return the records that SAMPLER@STEPS, a label or the beginning of a key names.

    What a record calls its row is enough, whether the plugin that made it is there or not.

    Raises:
        UsageError: if there is none.
    """
    name, at, steps = text.rpartition("@")
    if not at:
        found = [record for record in records if record.key.startswith(text) or record.sampler.label == text]
    else:
        column = [record for record in records if str(record.trial.steps) == steps]
        found = [record for record in column if name in (record.trial.sampler, record.sampler.label)]
        if not found:
            found = [record for record in column if record.trial.sampler == _spec(name)]
        if not found:  # a rule that is not there to be asked for its defaults
            found = [record for record in column if record.sampler.name == name]
    if not found:
        known = [f"{record.trial.sampler}@{record.trial.steps}" for record in records]
        raise (
            UnknownNameError("trial", text, known[:40])
            if at
            else UsageError(f"no trial has the key {text!r}")
        )
    return found


def _spec(name: str) -> str:
    """Return a sampler's full text, with the parameters that were left out; the text itself where unknown."""
    try:
        return get_sampler(name).spec
    except UnknownNameError:
        return name


def describe(record: Record, store: Store) -> str:
    """Return a record as lines of text."""
    lines = [f"{record.title} on {record.trial.model}: {record.status}"]
    if record.message:
        lines.append(f"  {record.message}")
    for name, score in record.scores.items():
        line = f"  {name:<16} {score.value:.6g} ± {score.se:.2g}"
        line += "" if math.isnan(score.influence_se) else f" (± {score.influence_se:.2g} by influence values)"
        line += f", bias-corrected {score.debiased:.6g}"
        lines.append(line + (f"  [{', '.join(score.flags)}]" if score.flags else ""))
    facts = {**facts_of(record), "command": record.environment.command}
    facts["record"] = str(store.records / f"{record.name}.json")
    if store.previews(record) is not None:
        facts["pictures"] = str(store.records / f"{record.name}.png")
    if store.film(record) is not None:
        facts["film"] = str(store.records / f"{record.name}.film.png")
    lines += [f"  {name:<16} {value}" for name, value in facts.items() if value]
    if record.failure is not None and record.failure.traceback:
        lines += [
            f"  failed at {record.failure.stage}:",
            *record.failure.traceback.rstrip().splitlines(),
        ]
    return "\n".join(lines)
