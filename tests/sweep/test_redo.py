"""Trials drawn again: an honest folder passes, and what was edited is named though all its hashes fit."""

import json
from dataclasses import replace

import pytest
import torch
from support.sweeps import Silent

from bench import get_sampler
from bench.commands.main import main
from bench.records.store import Store, write_strip
from bench.records.trial import BlockImages, BlockResult, Cost
from bench.report.tables.artefacts import write_tables
from bench.report.verify import verify
from bench.sweep import redo as module
from bench.sweep.redo import choose_excerpts, redo
from bench.sweep.request import Sweep
from bench.sweep.runner import Runner

METRIC = "fd_pixels"


@pytest.fixture
def store(tmp_path):
    """Two trials of an exact model in three blocks each, and a row of real images."""
    made = Store(tmp_path / "r")
    samplers = tuple(map(get_sampler, ("ddim", "ddpm:variance=fixedlarge")))
    runner = Runner(Sweep("exact-gaussian", samplers, steps=(3,), n=60, batch=20), made)
    runner.floor()
    runner.run(runner.plan(), Silent())
    write_tables(made.folder, made.read()[0], [])
    return made


@pytest.fixture
def long(monkeypatch):
    """Every trial counts as one that takes too long to be drawn whole."""
    monkeypatch.setattr(module, "WHOLE_SECONDS", -1.0)


def one(store, label="ddim eta=0"):
    (found,) = [r for r in store.read()[0] if r.kind == "samples" and r.sampler.label == label]
    return found


def again(store, count=9, seed=0):
    return list(redo(store, choose_excerpts(store.read()[0], count, seed)))


def edited(store, **fields):
    """Change a record as one who knows the format would: the digest is made again."""
    store.write(replace(one(store), **fields))
    assert not [f for f in verify(store.folder).findings if f.path.parent == store.records]


def wrong(store, count=9):
    return [found.told for found in again(store, count) if not found.agrees]


def test_an_honest_folder_comes_out_again_to_the_bit(store, capsys):
    found = again(store)
    assert [len(redone.excerpt.blocks) for redone in found] == [
        3,
        3,
    ]  # whole trials; real images are not drawn
    for redone in found:
        assert redone.agrees and not redone.machine and not redone.changed
        assert all(item.exact for item in redone.items)
        names = {item.name for item in redone.items}
        assert {"images of 3 blocks", "pictures", "film", "network calls", METRIC} <= names
    capsys.readouterr()
    assert main(["verify", str(store.folder), "--redo", "1", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert "1 drawn again, chosen with --seed 3" in out
    assert "all 60 samples: equal to the bit: images of 3 blocks, mean and deviation" in out


def test_a_score_edited_with_all_that_belongs_to_it_is_found(store, capsys):
    score = one(store).scores[METRIC]
    moved = tuple(0.95 * value for value in score.leave_one_out)
    others = {name: 0.95 * getattr(score, name) for name in ("value", "debiased", "se")}
    changed = replace(score, leave_one_out=moved, **others)
    edited(store, scores={METRIC: changed})
    (told,) = wrong(store)
    assert told.startswith(f"DIFFERS: {METRIC} is {changed.value:.6g} ± ")
    assert f" and {score.value:.6g} ± " in told
    capsys.readouterr()
    assert main(["verify", str(store.folder), "--redo", "9"]) == 1
    assert f"error: ddim eta=0 at S=3 ({one(store).key}), all 60 samples: DIFFERS" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["debiased", "leave_one_out", "flags"])
def test_each_part_of_a_score_is_compared(store, part):
    score = one(store).scores[METRIC]
    left = score.leave_one_out
    other = {
        "debiased": score.debiased - 0.3 * score.se,
        "leave_one_out": (left[0] + 1e-3 * score.value, *left[1:]),
        "flags": (),
    }
    assert score.flags
    store.write(replace(one(store), scores={METRIC: replace(score, **{part: other[part]})}))
    (told,) = wrong(store)
    assert METRIC in told.partition(";")[0]


def test_a_block_of_a_long_trial_is_drawn_on_its_own(store, long, capsys):
    found = again(store)
    assert len(found) == 6
    assert all(redone.agrees and not redone.excerpt.whole for redone in found)
    assert {str(redone.excerpt).partition("), ")[2] for redone in found} == {
        "samples 0 to 19 of 60",
        "samples 20 to 39 of 60",
        "samples 40 to 59 of 60",
    }
    capsys.readouterr()
    assert main(["verify", str(store.folder), "--redo", "1", "--json"]) == 0
    (folder,) = json.loads(capsys.readouterr().out)
    (excerpt,) = folder["redone"]["excerpts"]
    assert excerpt["agrees"] and excerpt["count"] == 20 and folder["redone"]["seed"] >= 0


def test_a_long_trial_is_drawn_whole_where_that_is_asked_for(store, long):
    assert [x.whole for x in choose_excerpts(store.read()[0], 9, 0, whole=True)] == [True, True]
    assert main(["verify", str(store.folder), "--redo", "1", "--whole"]) == 0


def test_images_that_are_not_those_of_the_record_are_found_in_their_block(store, long):
    images = one(store).images
    blocks = [images.blocks[0], f"{'0' * 16}{images.blocks[1][16:]}", images.blocks[2]]
    edited(store, images=replace(images, blocks=blocks))
    found = [redone for redone in again(store) if not redone.agrees]
    assert [redone.excerpt.blocks[0].start for redone in found] == [20]
    assert "DIFFERS: images 20 to 39 differ in some values" in found[0].told


def test_sums_of_images_that_are_not_those_of_the_blocks_are_named_without_drawing(store):
    made = one(store)
    store.write(replace(made, images=replace(made.images, mean=made.images.mean + 0.01)))
    assert "that is not that of its blocks" in " ".join(f.reason for f in verify(store.folder).findings)
    for text in ("none", "", f"{'0' * 16} 0 0 0 0"):
        store.write(replace(made, images=replace(made.images, blocks=[text])))
        found = " ".join(f.reason for f in verify(store.folder).findings)
        assert "tells of its blocks of images in a form that no version writes" in found
        (told,) = wrong(store)
        assert "images 0 to 19 are told in a form that no version writes" in told


def test_fewer_network_calls_than_were_taken_are_found_in_any_block(store, long):
    made = one(store)
    edited(store, cost=replace(made.cost, calls=made.cost.calls - 1))
    told = f"DIFFERS: network calls are {made.cost.calls - 1:g} in the record and {made.cost.calls:g} now"
    assert [text.partition(";")[0] for text in wrong(store)] == [told] * 3


def test_a_record_without_digests_is_compared_by_its_pictures(store, long):
    for label in ("ddim eta=0", "ddpm fixedlarge"):
        made = one(store, label)
        store.write(replace(made, images=replace(made.images, blocks=None)))
    found = again(store)
    assert [redone.excerpt.blocks for redone in found] == [[range(20)]] * 2
    assert [item.name for item in found[0].items] == ["pictures", "film", "network calls"]
    assert all(redone.agrees for redone in found)
    pictures = store.previews(one(store))
    write_strip(store.records / f"{one(store).name}.png", 255 - pictures)
    (told,) = wrong(store)
    assert told.startswith("DIFFERS: pictures differ by ")


def elsewhere(store, **fields):
    """Make a record one of another machine."""
    made = one(store)
    there = replace(made.environment, device_name="another processor")
    store.write(replace(made, environment=there, **fields))
    return next(redone for redone in again(store) if redone.machine)


def test_on_another_machine_rounding_passes_and_no_more(store):
    images, score = one(store).images, one(store).scores[METRIC]
    other = [f"{'0' * 16}{text[16:]}" for text in images.blocks]
    near = replace(score, value=score.value + 0.1 * score.se)
    found = elsewhere(store, images=replace(images, blocks=other), scores={METRIC: near})
    assert found.agrees
    assert "equal to rounding: images of 3 blocks" in found.told
    assert "bits are not asked for: another processor there, " in found.told
    far = replace(score, value=score.value + score.se)
    assert METRIC in elsewhere(store, scores={METRIC: far}).told.partition(";")[0]
    count, outside, total, squares = map(int, images.blocks[0].split()[1:])
    moved = f"{'0' * 16} {count} {outside} {total + count} {squares + 2 * total + count}"  # a level brighter
    found = elsewhere(store, images=replace(images, blocks=[moved, *images.blocks[1:]]))
    assert "DIFFERS: images 0 to 19 differ by 1 of 256 levels on average" in found.told


def test_a_stale_record_is_drawn_again_and_told_so(store):
    made = one(store)
    edited(store, provenance={**made.provenance, "code of the sampler": "0"})
    (stale,) = [redone for redone in again(store) if redone.changed]
    assert stale.agrees
    assert stale.told.endswith("stale, changed since: code of the sampler")


def test_what_is_missing_is_a_sentence(store, capsys):
    made = one(store)
    gone = replace(made.sampler, name="mine", plugin="there/mine.py")
    store.write(replace(made, trial=replace(made.trial, sampler="mine"), sampler=gone))
    other = one(store, "ddpm fixedlarge")
    store.write(replace(other, trial=replace(other.trial, model="gone.py:make")))
    told = wrong(store)
    assert any(
        "its sampler 'mine' came from the plugin file there/mine.py; give --plugin with that file" in text
        for text in told
    )
    assert any("model file gone.py does not exist" in text for text in told)
    assert main(["verify", str(store.folder), "--redo", "2"]) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--redo", "0"], "--redo must be at least 1"),
        (["--seed", "1"], "give --redo too"),
        (["--whole"], "give --redo too"),
        (["--redo", "1", "--plugin", "nowhere.py"], "plugin file nowhere.py does not exist"),
    ],
)
def test_bad_input_of_redo_is_one_sentence(store, options, sentence, capsys):
    assert main(["verify", str(store.folder), *options]) == 2
    assert sentence in capsys.readouterr().err


def test_the_choice_is_that_of_its_seed_and_reaches_every_block(store, long):
    records = store.read()[0]

    def chosen(seed, count=2):
        return [(x.record.key, x.blocks[0].start) for x in choose_excerpts(records, count, seed)]

    assert chosen(5) == chosen(5)
    assert len({key for key, _ in chosen(5)}) == 2  # each trial before any a second time
    assert {place for seed in range(60) for place in chosen(seed, 1)} == set(chosen(0, 6))


def test_a_trial_that_was_stopped_keeps_the_digests_of_its_blocks():
    images = torch.arange(2 * 144, dtype=torch.uint8).view(2, 1, 12, 12)
    levels = module.Levels.of(images)
    kept = BlockImages.of(images, levels)
    block = BlockResult(range(2), {}, Cost(), images, images[:0], levels, (kept,))
    arrays = block.to_arrays()
    assert BlockResult.from_arrays(range(2), arrays, Cost()).images == (kept,)
    assert BlockImages.parse(str(kept)) == kept
    assert BlockImages.of(images.flip(0), levels).digest != kept.digest
    del arrays["images"]  # as an earlier version wrote it: the block stands, without
    assert BlockResult.from_arrays(range(2), arrays, Cost()).images == ()
