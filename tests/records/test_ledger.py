"""The ledger: what is planned, answered, stale, incomplete and left to do, for any kind of cell."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bench
from bench.errors import UsageError
from bench.records import ledger
from bench.records.blocks import drop_blocks, merge_blocks, read_blocks, write_block
from bench.records.ledger import Cell, block_folder, check_numbers
from bench.records.provenance import environment
from bench.records.record import GridInfo, ModelInfo, RowInfo
from bench.records.store import Store
from bench.records.trial import Cost, Failure, Trial

ROOT = Path(bench.__file__).parents[1]


def cell(steps=10, kind="bound", **provenance):
    trial = Trial("a model", "a rule", "uniform", steps, 8, 0, 4, "float32", "cpu", ("score",))
    row = RowInfo(label="a rule")
    return Cell(kind, trial, row, ModelInfo("w"), GridInfo(steps), {"weights": "w", **provenance}, "cpu")


def test_a_plan_says_of_every_cell_what_the_folder_holds_of_it(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    stands, changes, fails, lacks = cell(1), cell(2), cell(3), cell(4)
    for each in (stands, changes, lacks):
        store.write(each.record())
    store.write(fails.record(Failure("failed", "step 1", "it broke")))
    (tmp_path / "records" / "broken.json").write_text("{")
    asked = [stands, replace(changes, provenance={"weights": "others"}), fails, lacks, cell(5), stands]
    found = ledger.plan(store, asked, lambda record: "features" if record.trial.steps == 4 else "")
    assert [entry.cell.trial.steps for entry in found.entries] == [1, 2, 3, 4, 5]
    assert list(found.reused) == [stands.key]
    assert [(old.record.trial.steps, old.fields) for old in found.stale] == [(2, ["weights"])]
    assert [(old.record.trial.steps, old.fields) for old in found.incomplete] == [(4, ["features"])]
    assert [each.trial.steps for each in found.pending] == [2, 3, 4, 5]
    assert [damage.path.name for damage in found.unreadable] == ["broken.json"]
    made = [each.record() for each in reversed(found.pending)]
    assert [record.trial.steps for record in found.answers(made)] == [1, 2, 3, 4, 5]


def test_a_cell_tells_its_record_all_but_the_scores():
    record = cell(7, kind="real").record()
    assert (record.kind, record.trial.steps, record.grid.steps, record.status) == ("real", 7, 7, "done")
    assert record.provenance == {"weights": "w"}
    failed = cell().record(Failure("skipped", "setup", "it does not fit"))
    assert (failed.status, failed.message, failed.stage) == ("skipped", "it does not fit", "setup")


def test_blocks_outlive_a_change_of_how_they_are_scored_and_of_nothing_else(tmp_path):
    folder = block_folder(Store(tmp_path), cell())
    for name in ("reference of fid", "held-out images of copying", "code of metric fid"):
        assert block_folder(Store(tmp_path), cell(**{name: "new"})) == folder
    for name in ("weights", "time steps", "feature space of fid", "code that draws"):
        assert block_folder(Store(tmp_path), cell(**{name: "new"})) != folder


def test_blocks_are_read_in_order_without_overlap_and_without_damage(tmp_path):
    folder = tmp_path / "key-state"
    for start, stop in ((4, 8), (0, 4), (0, 8), (8, 12), (12, 16)):
        write_block(folder, range(start, stop), {"x": np.arange(start, stop)}, Cost(calls=stop))
    (folder / "00000008-00000012.npz").write_bytes(b"half a file")
    found = list(read_blocks(folder))
    assert [(block, cost.calls) for block, _, cost in found] == [(range(8), 8), (range(12, 16), 16)]
    assert found[0][1]["x"].tolist() == list(range(8))


def test_merged_blocks_take_the_place_of_those_within(tmp_path):
    folder = tmp_path / "key-state"
    for start in (0, 4, 8):
        write_block(folder, range(start, start + 4), {}, Cost())
    merge_blocks(folder, range(8), {}, Cost(calls=3))
    assert sorted(path.stem for path in folder.iterdir()) == ["00000000-00000008", "00000008-00000012"]
    drop_blocks(tmp_path, "key")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"n": 1}, "--n must be at least 2 images, got 1"),
        ({"batch": 0}, "--batch must be at least 1, got 0"),
        ({"seed": -1}, "--seed must not be negative, got -1"),
        ({"steps": (5, 0)}, "every number of steps must be at least 1, got 5, 0"),
    ],
)
def test_a_number_out_of_range_is_named(changed, says):
    numbers = {"n": None, "batch": None, "seed": 0, "steps": (), "what": "images"}
    check_numbers(**numbers)
    with pytest.raises(UsageError, match=says):
        check_numbers(**(numbers | changed))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the tests run on an installed package")
def test_a_record_made_in_a_checkout_names_its_commit():
    head = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    found = environment("cpu")
    assert found.commit == head.stdout.strip()
    assert found.dirty in (True, False)
