"""The row of real images: of a user's own, or split off the reference and scored against the rest of it."""

import json

import numpy as np
import pytest
import torch
from support.commands import bench
from support.sweeps import Silent

from bench import get_sampler
from bench.metrics.groups import GroupedStatistics
from bench.metrics.measuring import reference_statistics
from bench.metrics.space import get_space
from bench.plugins.loading import registry
from bench.plugins.lookup import shuffled
from bench.records.record import SPLIT_OFF
from bench.records.store import Store
from bench.report.tables.scores import score_sheet
from bench.report.tables.table import tables_of
from bench.stats.resampling import jackknife
from bench.sweep.request import Sweep
from bench.sweep.runner import Runner

MODEL = """
import torch
from models.exact import ExactGaussian


def make():
    model = ExactGaussian(torch.zeros(1, 3, 3), 0.04 * torch.eye(9))
    model.draw = None  # only images say what its samples should be like
    return model
"""
SHAPE = (1, 3, 3)


def write(path, count, seed):
    rng = np.random.default_rng(seed)
    images = np.clip(127.5 * 0.2 * rng.standard_normal((count, *SHAPE[1:])) + 128, 0, 255).astype(np.uint8)
    np.save(path, images)
    return torch.from_numpy(images)[:, None]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(MODEL)
    return tmp_path


def runner(folder, **changes):
    asked = {
        "model": f"{folder / 'mine.py'}:make",
        "samplers": (get_sampler("ddim"),),
        "steps": (5,),
        "n": 40,
        "batch": 40,
        "metrics": ("fd_pixels", "sliced_wasserstein_pixels", "copying_pixels"),
        "reference": str(folder / "images.npy"),
        **changes,
    }
    return Runner(Sweep(**asked), Store(folder / "r"))


def run(made):
    plan = made.plan()
    notes = list(made.notes(plan))
    return made.run(plan, Silent()), made.floor(), notes


def test_the_part_that_is_split_off_is_not_in_the_reference_that_it_is_scored_against(folder):
    """Every score of the row is that of a reference measured on the rest alone."""
    images = write(folder / "images.npy", 500, 0)
    made = runner(folder)
    records, floor, notes = run(made)
    assert notes == [
        f"real images: 80 of the 500 images of {folder / 'images.npy'}, scored against the rest of them;"
        " --held-out IMAGES names others"
    ]
    assert floor.grid.folds == 2 and floor.trial.n == 40
    places = shuffled(500)
    kept = torch.ones(500, dtype=torch.bool)
    kept[places[:80]] = False
    space = get_space("pixels", SHAPE)
    rest = reference_statistics(images[kept], space, needs="features")
    for name, score in floor.scores.items():
        metric, values = registry().metrics.get(name), []
        for fold in (places[:40], places[40:80]):
            sums = GroupedStatistics(40, space.dim, keep_features=True)
            sums.add(space(images[fold]), range(40))
            values.append(metric.score(sums, rest))
        assert score.value == pytest.approx(sum(one.value for one in values) / 2, rel=1e-9), name
        own = [jackknife(one.value, one.leave_one_out).se for one in values]
        assert score.se >= (own[0] ** 2 + own[1] ** 2) ** 0.5 / 2 * (1 - 1e-6)
    whole = reference_statistics(images, space)
    assert records[0].scores["fd_pixels"].reference == whole.hash  # samples against all of it
    assert floor.scores["fd_pixels"].reference != whole.hash


def test_the_row_stands_in_the_table_of_its_reference_and_says_where_it_is_from(folder):
    write(folder / "images.npy", 500, 0)
    records, floor, _ = run(runner(folder))
    (table,) = tables_of([*records, floor])
    assert table.floor == floor.scores["fd_pixels"]
    assert "real images: a part of the reference, scored against the rest of it" in score_sheet(table).note
    write(folder / "images.npy", 500, 1)  # other images in the same file
    others, _, _ = run(runner(folder))
    (table,) = tables_of([*others, floor])
    assert table.floor is None


def test_a_row_is_reused_and_made_anew_when_its_images_are_others(folder):
    write(folder / "images.npy", 500, 0)
    _, first, _ = run(runner(folder))
    path = next(p for p in (folder / "r" / "records").glob("*.json") if first.key in p.name)
    before = path.stat().st_mtime_ns
    assert run(runner(folder))[1] == first
    assert path.stat().st_mtime_ns == before
    assert SPLIT_OFF in first.provenance

    write(folder / "others.npy", 90, 7)
    _, named, notes = run(runner(folder, held_out=str(folder / "others.npy")))
    assert notes == []
    assert named.key == first.key and SPLIT_OFF not in named.provenance
    assert named.grid.folds == 2
    assert named.scores["fd_pixels"].value != first.scores["fd_pixels"].value
    _, again, _ = run(runner(folder))
    assert again.scores == first.scores
    assert len(list((folder / "r" / "records").glob("*.json"))) == 2


def test_a_small_reference_has_no_row_and_says_so(folder):
    write(folder / "images.npy", 199, 0)
    _, floor, notes = run(runner(folder))
    assert floor is None
    assert notes == [
        f"no row of real images: {folder / 'images.npy'} has 199 images, and 40 can be split off from 200 on;"
        " give --held-out IMAGES"
    ]


def test_statistics_have_no_row_and_say_so(folder):
    np.savez(folder / "images.npz", mu=np.zeros(9), sigma=np.eye(9))
    changes = {"reference": str(folder / "images.npz"), "metrics": ("fd_pixels",)}
    _, floor, notes = run(runner(folder, **changes))
    assert floor is None
    assert notes == [
        f"no row of real images: no score is against images of {folder / 'images.npz'}; give --held-out"
        " IMAGES"
    ]
    write(folder / "others.npy", 90, 7)
    _, floor, notes = run(runner(folder, **changes, held_out=str(folder / "others.npy")))
    assert floor.grid.folds == 2 and notes == []


def test_held_out_images_that_are_sorted_are_shuffled(folder):
    """A folder is sorted by class: the first n images of it would be of one class."""
    write(folder / "images.npy", 500, 0)
    write(folder / "others.npy", 100, 3)
    pixels = np.load(folder / "others.npy")
    np.save(folder / "others.npy", pixels[np.argsort(pixels.mean((1, 2)))])
    _, floor, _ = run(runner(folder, held_out=str(folder / "others.npy")))
    _, split, _ = run(runner(folder))
    assert floor.scores["fd_pixels"].value < 3 * split.scores["fd_pixels"].value


def test_held_out_images_that_are_in_the_reference_are_named(folder):
    images = write(folder / "images.npy", 500, 0)
    np.save(folder / "others.npy", np.concatenate([images[:30, 0].numpy(), np.zeros((20, 3, 3), np.uint8)]))
    _, _, notes = run(runner(folder, held_out=str(folder / "others.npy")))
    assert notes == [
        f"30 of the 50 images of {folder / 'others.npy'} are in the reference too: the row of real images is"
        " too good by them"
    ]


def test_a_model_s_own_held_out_images_are_no_real_images_of_another_reference(folder):
    """Digits held out for the shipped model say nothing about the user's images."""
    rng = np.random.default_rng(0)
    np.save(folder / "images.npy", rng.integers(0, 256, (300, 12, 12), dtype=np.uint8))
    made = runner(folder, model="digits", metrics=("fd_pixels",))
    assert made.loaded.card.held_out is None
    assert made.floor().provenance[SPLIT_OFF]
    assert runner(folder, model="digits", reference=None).loaded.card.held_out == "digits-held-out"
    assert runner(folder, model="digits", reference="digits").loaded.card.held_out == "digits-held-out"


def test_the_command_line_takes_them_and_refuses_what_cannot_be(folder):
    write(folder / "images.npy", 500, 0)
    write(folder / "others.npy", 90, 7)
    np.save(folder / "wide.npy", np.zeros((50, 3, 4), dtype=np.uint8))
    command = [
        "run",
        "--model",
        f"{folder / 'mine.py'}:make",
        "--reference",
        folder / "images.npy",
        "--n",
        "40",
    ]
    command += ["--samplers", "ddim", "--steps", "4", "--results", folder / "r"]
    done = bench(*command, "--held-out", folder / "others.npy")
    assert done.returncode == 0, done.stderr
    assert "real images (n=40)" in done.stdout
    kinds = [json.loads(path.read_text())["kind"] for path in (folder / "r" / "records").glob("*.json")]
    assert sorted(kinds) == ["real", "samples"]
    for name, sentence in (
        ("wide.npy", "has 50 images of shape (1, 3, 4); give at least 2 of shape (1, 3, 3)"),
        ("none.npy", "no image data at"),
    ):
        refused = bench(*command, "--held-out", folder / name)
        assert refused.returncode == 2
        assert sentence in " ".join(refused.stderr.split())
    missing = bench("run", "--model", "digits", "--reference", "cifar10", "--dry-run")
    assert "or name cifar10:FOLDER in the place of cifar10" in " ".join(missing.stderr.split())
    assert "--data" not in missing.stderr
