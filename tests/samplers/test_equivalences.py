"""docs/equivalences.md says what the trajectories say."""

from support.equivalences import TABLE

from bench.plugins.loading import registry


def test_the_document_has_what_is_measured():
    assert TABLE.written() == TABLE.make()


def test_every_name_of_ours_in_the_document_is_a_sampler():
    names = TABLE.document.read_text(encoding="utf-8").partition("## What others call them")[2].splitlines()
    ours = [
        cell.partition(":")[0] for line in names if line.startswith("| `") for cell in line.split("`")[1::2]
    ]
    first = [line.split("|")[1] for line in names if line.startswith("| `")]
    for cell in first:
        for name in cell.split("`")[1::2]:
            assert name.partition(":")[0] in registry().samplers.entries
    assert len(ours) > 30
