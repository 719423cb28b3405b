"""The table of certificates in docs/samplers.md is what the samplers do."""

from support.certificates import TABLE


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def deviation(cell):
    return float(cell.partition("(")[2].rstrip(")")) if cell else 0.0


def test_the_document_has_what_is_measured():
    told, measured = cells(TABLE.written()), cells(TABLE.make())
    assert [row[:5] for row in told] == [row[:5] for row in measured]
    for before, now in zip(told[2:], measured[2:], strict=True):
        assert deviation(now[5]) <= max(10 * deviation(before[5]), 1e-12), now[0]
        kept, _, asked = now[4].split()
        assert kept == asked, now[0]
