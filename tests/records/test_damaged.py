"""A record is anybody's file: whatever stands in one is read, or refused in a sentence, and ends nothing."""

import copy
import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from support.reports import record, results

from bench.commands.main import main
from bench.errors import BenchError
from bench.records.record import GridInfo, ImagesInfo, Record, sealed
from bench.records.store import Store, read_strip
from bench.records.trial import Cost
from bench.records.typed import check_fields, fits
from bench.report.site.boards import boards_of
from bench.report.verify import verify

ODD = [None, "x", [], {}, -1, 0, 10**400, True, "<b>&\n\0", ["a"], {"a": 1}, "../x"]


def places(value, path=()):
    """The path of every value in a record, of the first two of a list."""
    if path:
        yield path
    inside = (
        value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    )
    for name, one in inside:
        yield from places(one, (*path, name))


def put(fields, path, value):
    """The fields with another value at a path, and the digest that belongs to them."""
    made = copy.deepcopy(fields)
    at = made
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    return sealed(made)


def test_no_value_of_a_record_ends_what_reads_it(tmp_path):
    """Each is resealed as one who knows the format would; what is read makes tables and boards."""
    store = Store(tmp_path)
    store.prepare()
    made = record("ddim:eta=0", 10, 2.0)
    path = store.write(made)
    fields = json.loads(path.read_text())
    fields.pop("digest")
    read = tried = 0
    for place in list(places(fields)):
        for value in ODD:
            path.write_text(json.dumps(put(fields, place, value)))
            good, bad = store.read()
            assert len(good) + len(bad) == 1
            assert not bad or "it is truncated or not a record" in str(bad[0]) or "newer" in str(bad[0])
            verify(tmp_path)
            boards_of(good)
            read, tried = read + len(good), tried + 1
    assert tried > 900 and 0.1 * tried < read < 0.6 * tried


@pytest.mark.parametrize("copied", ["a copy.json", "zz-conflict.json"])
def test_a_copy_of_a_record_counts_once_and_is_named(copied, tmp_path, capsys):
    store = results(tmp_path)
    before = store.read()[0]
    path = store.records / f"{before[3].name}.json"
    (store.records / copied).write_bytes(path.read_bytes())
    records, (twin,) = store.read()
    assert [one.name for one in records] == [one.name for one in before]
    assert str(twin) == (
        f"record {store.records / copied} holds the trial of {path.name} a second time and is not counted;"
        " delete it"
    )
    assert [str(found) for found in verify(tmp_path).findings if found.path.name == copied] == [
        f"{store.records / copied} holds the trial of {path.name} a second time"
    ]
    assert main(["status", "--results", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count(copied) == 1


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", '"1"'])
def test_numbers_are_numbers(text, tmp_path):
    store = Store(tmp_path)
    store.prepare()
    path = store.write(record("ddim:eta=0", 10, 2.0))
    path.write_text(path.read_text().replace('"sampling_seconds": 0.2', f'"sampling_seconds": {text}'))
    assert text in path.read_text()
    assert [len(part) for part in store.read()] == [0, 1]


def test_what_this_version_writes_it_reads(tmp_path):
    store = results(tmp_path)
    good, bad = store.read()
    assert (len(good), bad) == (12, [])
    for one in good:
        assert repr(Record.from_json(one.to_json())) == repr(one)  # no number, NaN, equals no other


@pytest.mark.parametrize(
    ("made", "wrong"),
    [
        (Cost(calls="ten"), "calls is 'ten'"),
        (GridInfo(steps=1.5), "steps is 1.5"),
        (GridInfo(steps=True), "steps is True"),
        (ImagesInfo(blocks="text"), "blocks is 'text'"),
        (ImagesInfo(mean=float("inf")), "mean is inf"),
    ],
)
def test_a_field_of_another_type_is_named(made, wrong):
    with pytest.raises(ValueError, match=wrong):
        check_fields(made)


def test_whole_numbers_are_floats_and_not_the_other_way_round():
    assert fits(1, float) and fits(float("nan"), float) and not fits(1.0, int) and not fits(2**64, int)
    assert fits((1, "a"), tuple[str, ...]) is False and fits(None, int | None) and not fits(None, int)


def strips(path):
    """Files that are no strips of pictures, one after the other at a path."""
    path.write_bytes(b"garbage")
    yield
    for shape in ("x,y", "0,0,0", "3,-1,3", "7,7,7", ""):
        told = PngInfo()
        told.add_text("shape", shape)
        Image.new("L", (10, 3)).save(path, pnginfo=told)
        yield
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    yield


def test_a_damaged_picture_is_named_by_whoever_needs_it(tmp_path, capsys):
    store = results(tmp_path)
    made = next(one for one in store.read()[0] if one.status == "done")
    path = store.records / f"{made.name}.png"
    for _ in strips(path):
        with pytest.raises(BenchError, match=r"picture .* is damaged .* delete it"):
            read_strip(path)
    findings = {finding.path: finding.reason for finding in verify(tmp_path).findings}
    assert findings[path] == "cannot be read as a picture"
    for verb in ("plot", "report"):
        assert main([verb, "--results", str(tmp_path)]) == 1
        told = capsys.readouterr().err
        assert told.startswith(f"error: picture {path} is damaged (")
        assert told.endswith(" while it was read); delete it, or the record beside it to draw it anew\n")
