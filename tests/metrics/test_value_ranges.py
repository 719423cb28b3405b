"""The flags of images in a wrong range: what must be flagged is, what the shipped models draw is not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.commands import bench as run_bench

from bench.data.images import from_uint8, to_uint8
from bench.data.sets import load_images
from bench.metrics.levels import Levels
from bench.records.record import ImagesInfo, Record

ROOT = Path(__file__).parents[2]


def digits(n=400):
    return from_uint8(load_images("digits").images[:n])


def levels_of(x0):
    return Levels.of(to_uint8(x0), x0)


REFERENCE = levels_of(digits())


@pytest.mark.parametrize(
    ("wrong", "flags"),
    [
        (lambda x: x, ()),
        (lambda x: x + 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)), ()),
        (lambda x: x / 2, ("range",)),
        (lambda x: x / 2 + 0.5, ("range",)),  # images in [0, 1]
        (lambda x: x + 0.25, ("range",)),
        (lambda x: (x - x.mean()) / 2 + x.mean(), ("range",)),
        (lambda x: 3 * x, ("saturated",)),
        (lambda x: 127.5 * (x + 1), ("saturated", "range")),  # images in 0 .. 255
        (lambda x: x.clamp(-1, 1) * 1.19, ()),
    ],
)
def test_a_wrong_range_is_flagged(wrong, flags):
    found = levels_of(wrong(digits())).flags(REFERENCE)
    assert set(flags) <= set(found)
    assert flags or not found


def test_sums_add_up_and_say_what_numpy_says():
    x0 = 2 * torch.randn(50, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    images = to_uint8(x0)
    whole = Levels.of(images, x0)
    assert Levels.of(images[:7], x0[:7]) + Levels.of(images[7:], x0[7:]) == whole
    values = images.numpy() / 127.5 - 1
    assert whole.mean == pytest.approx(values.mean(), abs=1e-12)
    assert whole.sd == pytest.approx(values.std(), abs=1e-12)
    assert whole.share_outside == pytest.approx(float((x0.abs() > 1.2).float().mean()), abs=1e-7)
    assert Levels.from_array(whole.to_array()) == whole


def test_statistics_of_others_and_flat_references_give_no_range():
    far = levels_of(digits() / 2)
    assert far.flags(None) == ()
    assert far.flags(levels_of(torch.zeros(3, 1, 2, 2))) == ()


FILE = """
import torch, bench
from bench.data.images import from_uint8
from bench.data.sets import load_images

SCHEDULE = bench.NoiseSchedule.linear()


def made(scale):
    mean = scale * from_uint8(load_images("digits").images[:1])[0]

    def network(x, t):  # x_0 is one digit, scaled
        return mean.expand_as(x)

    return bench.from_prediction(network, SCHEDULE, (1, 12, 12), "x0")


def right():
    return made(1.0)


def wide():
    return made(3.0)
"""


def test_scores_of_a_sweep_are_flagged_and_say_why(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    one = load_images("digits").images[:1].repeat(20, 1, 1, 1)
    np.save(tmp_path / "one.npy", one.permute(0, 2, 3, 1).numpy())
    flags = {}
    for name in ("right", "wide"):
        done = run_bench(
            *("run", "--model", f"{tmp_path}/mine.py:{name}", "--samplers", "ddim", "--steps", "2"),
            *("--n", "8", "--batch", "3", "--reference", tmp_path / "one.npy", "--results", tmp_path / name),
        )
        assert done.returncode == 0, done.stderr
        record = next(iter((tmp_path / name / "records").glob("*.json"))).read_text()
        flags[name] = [flag for flag in ("saturated", "range") if f'"{flag}"' in record]
        said = " ".join(done.stdout.split())
        assert ("were cut off" in said) == (name == "wide")
        shown = run_bench("show", "ddim@2", "--results", tmp_path / name).stdout
        assert "far outside [-1, 1] before rounding" in " ".join(shown.split())
    assert flags == {"right": [], "wide": ["saturated"]}


def test_records_made_before_are_read():
    record = json.loads(next((ROOT / "results/reference/cifar10-ddpm/records").glob("*.json")).read_text())
    assert "images" not in record
    assert Record.from_json(record).images == ImagesInfo()
