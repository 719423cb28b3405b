"""The table of presets in docs/results.md: --write puts it there anew."""

import sys
from pathlib import Path

from bench.published.presets import PRESETS

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.generated import DOCS, Generated


def table():
    """Return a row for every preset: what it is a table of, its checkpoint, its time grids and columns."""
    rows = ["| preset | table | checkpoint | grids | columns |", "|---|---|---|---|---|"]
    for preset in PRESETS.values():
        grids = dict.fromkeys([*preset.by_spacing(), *preset.spacing_at.values()])
        columns = f"{', '.join(map(str, preset.columns))} {'calls' if preset.calls else 'steps'}"
        told = ", ".join(f"`{grid}`" for grid in grids)
        rows.append(f"| `{preset.name}` | {preset.summary} | `{preset.model}` | {told} | {columns} |")
    return "\n".join(rows) + "\n"


TABLE = Generated(DOCS / "results.md", "presets", table)

if __name__ == "__main__":
    TABLE.main()
