"""A results folder of many records, for what must stay fast when there are thousands."""

import itertools
import json
from dataclasses import replace

from bench.records.record import sealed

COLUMNS = (10, 20, 50, 100, 1000)


def variants(records, count):
    """Yield ``count`` records: the given ones again and again, each five with an eta of their own."""
    for number, record in zip(range(count), itertools.cycle(records), strict=False):
        row, column = divmod(number, len(COLUMNS))
        eta = row / count
        trial = replace(record.trial, sampler=f"ddim:eta={eta:g},clip=none", steps=COLUMNS[column])
        info = replace(
            record.sampler,
            name="ddim",
            label=f"ddim eta={eta:g}",
            parameters={"eta": eta, "clip": "none"},
            place=(eta, 0.0),
        )
        yield replace(record, trial=trial, sampler=info, key="")


def write(folder, records):
    """Write them as a store does, but for the search for older files of each."""
    folder.mkdir(parents=True)
    for record in records:
        text = json.dumps(sealed(record.to_json()), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / f"{record.name}.json").write_text(text, encoding="utf-8")
