"""Tables of the documents that are measured: written between two marks, and read from there."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def measured_on(machine):
    """When and on what something was measured, with the versions, as a sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items() if version)
    return f"{machine.finished[:10]}, {machine.device_name}, threads: {machine.threads}; {versions}."


@dataclass(frozen=True)
class Generated:
    """A part of a document between ``<!-- mark -->`` and ``<!-- end of mark -->``."""

    document: Path
    mark: str
    make: Callable[[], str]

    def _parts(self):
        text = self.document.read_text(encoding="utf-8")
        before, begin, rest = text.partition(f"<!-- {self.mark} -->\n")
        inside, end, after = rest.partition(f"<!-- end of {self.mark} -->\n")
        return before + begin, inside, end + after

    def written(self):
        """What stands in the document."""
        return self._parts()[1]

    def main(self):
        """Print it made anew; with --write put it into the document."""
        fresh = self.make()
        print(fresh, end="")
        if "--write" in sys.argv:
            before, _, after = self._parts()
            self.document.write_text(before + fresh + after, encoding="utf-8")
