"""docs/equivalences.md says what the trajectories say."""

from support.equivalences import TABLE

from bench import get_sampler


def test_the_document_has_what_is_measured():
    assert TABLE.written() == TABLE.make()


def test_every_name_of_ours_in_the_document_is_a_sampler():
    names = TABLE.document.read_text(encoding="utf-8").partition("## What others call them")[2].splitlines()
    first = [line.split("`")[1] for line in names if line.startswith("| `")]
    assert len(first) > 15
    for name in first:
        assert get_sampler(name)
