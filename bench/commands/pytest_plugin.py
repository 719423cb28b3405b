"""The conformance kit inside pytest: ``pytest --check-sampler mine.py`` runs every clause as a test.

It is loaded with every pytest where the project is installed, so it imports nothing before it is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bench.diffusion.sampling import Sampler


@pytest.hookimpl
def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("sampler-bench").addoption(
        "--check-sampler",
        action="append",
        default=[],
        metavar="FILE|SAMPLER",
        help="test the samplers of a plugin file, or one by name, clause by clause",
    )


@pytest.hookimpl
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Add the clauses of every sampler asked for to the tests."""
    for what in session.config.getoption("--check-sampler"):
        group = Conformance.from_parent(session, name=f"check {what}", nodeid=f"check {what}")
        items.extend(group.collect())


class Conformance(pytest.Collector):
    """The clauses of the samplers that one text names."""

    def collect(self) -> Iterator[ClauseItem]:
        """Yield a test for every clause of every sampler.

        Raises:
            pytest.UsageError: if there is no such sampler.
        """
        from bench.commands.check import samplers_of
        from bench.diffusion.conformance import CLAUSES
        from bench.errors import BenchError
        from bench.plugins.loading import registry

        what = self.name.removeprefix("check ")
        try:
            chosen = samplers_of(what)
        except BenchError as error:
            raise pytest.UsageError(str(error)) from None
        if failures := registry().failures_of(Path(what)):
            raise pytest.UsageError("; ".join(f"{one.plugin}: {one.message}" for one in failures))
        for sampler in chosen:
            for clause in CLAUSES:
                yield ClauseItem.from_parent(self, name=f"{sampler.label}: {clause}", test=(sampler, clause))


class ClauseItem(pytest.Item):
    """One clause of one sampler; skipped where the clause does not apply."""

    def __init__(self, *, test: tuple[Sampler, str], **rest: object) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]
        self.test = test

    def runtest(self) -> None:
        """Measure it."""
        from bench.diffusion.conformance import check_clause

        found = check_clause(*self.test)
        if found.kept is None:
            pytest.skip(found.detail)
        if not found.kept:
            pytest.fail(found.detail or found.clause, pytrace=False)

    def reportinfo(self) -> tuple[str, None, str]:
        """Return what stands in the report."""
        return "sampler-bench", None, self.name
