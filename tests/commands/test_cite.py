"""BibTeX of what was used."""

import re
from pathlib import Path

import pytest
from support.commands import bench

from bench.plugins.loading import registry
from bench.published.bibliography import cited, entries

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


@pytest.mark.parametrize("name", [name for name in registry().samplers if name != "learned"])
def test_every_source_of_a_built_in_has_its_entry(name):
    source = registry().samplers.get(name).source
    found = cited([source])
    assert found, source
    assert all("title" in entry for entry in found)


def test_entries_are_whole_and_every_key_is_there_once():
    keys = [re.match(r"@\w+\{(\w+),", entry)[1] for entry in entries().values()]
    assert len(set(keys)) == len(keys) > 25
    for entry in entries().values():
        assert entry.count("{") == entry.count("}")
        assert "author = {" in entry and "year = {" in entry


def test_a_paper_that_nobody_entered_is_cited_by_its_number():
    assert "eprint = {2999.99999}" in cited(["Somebody, arXiv:2999.99999, eq. 1"])[0]


def test_the_reference_run_cites_its_papers_once(tmp_path):
    done = bench("cite", "--results", REFERENCE / "digits")
    assert done.returncode == 0, done.stderr
    for number in ("2006.11239", "2010.02502", "1706.08500"):
        assert done.stdout.count(f"eprint = {{{number}}}") == 1
    assert "2306.14878" not in done.stdout  # restart is no row of it
