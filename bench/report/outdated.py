"""Tables and plots under names that they have no longer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.records.pack import KINDS
from bench.records.record import Record
from bench.report.plots.gallery import PLOTS
from bench.report.tables.artefacts import ENDINGS
from bench.report.tables.table import Table, slugs_of

_PLOTS = tuple(f"-{name}{mark}" for name in (*PLOTS, "pictures", "films") for mark in ("", "-dark"))
_ENDINGS = {"tables": ENDINGS, "plots": _PLOTS}


def drop_old_names(folder: Path, records: Sequence[Record], tables: Iterable[Table]) -> list[Path]:
    """Remove tables and plots under names that tables of these records had before, and have no longer.

    A table's name says as much as tells it from the others of its folder: the first with another n gives the
    one that was there a new name. What has a name of the user's own stays, and so does all that is made now.

    Args:
        folder: the results folder.
        records: all of its records.
        tables: all tables of these.

    Returns:
        what was removed.
    """
    now = {table.slug for table in tables}
    ever = slugs_of(records)
    gone = []
    for name, endings in _ENDINGS.items():
        for path in sorted(one for ending in KINDS[name] for one in (folder / name).glob(f"*{ending}")):
            named = {path.stem.removesuffix(ending) for ending in endings if path.stem.endswith(ending)}
            if not named & now and any(map(ever.fullmatch, named)) and path.is_file():
                path.unlink(missing_ok=True)
                gone.append(path)
    return gone
