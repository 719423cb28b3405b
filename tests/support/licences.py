"""The table of docs/licences.md, from the installed packages' own metadata: --write puts it there."""

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.generated import DOCS, Generated

SPDX = {
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
    "UNKNOWN": "not stated",
}
"""What packages call their licences in their metadata, by the names of SPDX."""


def required():
    """{package: the extras that need it, none where it is always needed}, from pyproject.toml."""
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {}
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    for extra, lines in groups.items():
        for line in lines:
            name = re.match(r"[\w.-]+", line)[0]
            if name != "sampler-bench":
                found.setdefault(name, []).append(extra)
    return {name: [] if "" in extras else extras for name, extras in found.items()}


def licence(package):
    """The licence of an installed package by its SPDX name; None where it is not installed."""
    try:
        told = metadata(package)
    except PackageNotFoundError:
        return None
    if told["License-Expression"]:
        return told["License-Expression"]
    classifiers = [
        line.rpartition(" :: ")[2] for line in told.get_all("Classifier", []) if line.startswith("License ::")
    ]
    named = [SPDX.get(name, name) for name in classifiers if name != "OSI Approved"]
    first = (told["License"] or "").strip().splitlines()[:1]
    return named[0] if named else SPDX.get(first[0], first[0]) if first else "not stated"


def written():
    """{package: licence} of the table as it stands."""
    rows = [line.strip("| ").split(" | ") for line in TABLE.written().splitlines()[2:]]
    return {name.strip("`"): shown for name, shown, _ in rows}


def table():
    """A row for every package that is required; what is not installed keeps the licence that is written."""
    known, rows = written(), ["| package | licence | needed by |", "|---|---|---|"]
    for name, extras in sorted(required().items(), key=lambda item: item[0].lower()):
        who = ", ".join(f"extra `{extra}`" for extra in extras) or "the package"
        rows.append(f"| `{name}` | {licence(name) or known.get(name, 'unknown')} | {who} |")
    return "\n".join(rows) + "\n"


TABLE = Generated(DOCS / "licences.md", "licences", table)

if __name__ == "__main__":
    TABLE.main()
