"""What cannot be scored, or never ends, is one sentence before anything is drawn."""

import time

import numpy as np
import pytest
import torch

from bench.commands.main import main
from bench.metrics.groups import GroupedStatistics
from bench.metrics.manifold import ManifoldMetric, neighbourhoods
from bench.metrics.reference import Reference
from bench.records.ledger import MOST_SAMPLES
from bench.records.trial import Trial

FEWEST = ManifoldMetric.fewest
PLUGIN = """
from bench import hookimpl
from bench.metrics import FrechetMetric


class Fussy(FrechetMetric):
    fewest = 50


@hookimpl
def bench_metrics():
    return [Fussy("fussy", "pixels")]
"""
MODEL = """
import bench


def make():
    return bench.from_denoiser(lambda y, sigma: 0 * y, (1, 4, 4))
"""


def refused(capsys, folder, *arguments):
    command = [
        "run",
        "--samplers",
        "ddim",
        "--steps",
        "4",
        "--results",
        str(folder / "r"),
        *map(str, arguments),
    ]
    assert main(command) == 2
    assert not list((folder / "r").rglob("*.json")) and not list((folder / "r").rglob("*.npz"))
    return capsys.readouterr().err


def test_too_few_samples_or_reference_images_for_a_metric_are_said_before_drawing(tmp_path, capsys):
    digits = ("--model", "digits", "--metrics", "fd_digits,precision_digits")
    told = refused(capsys, tmp_path, *digits, "--n", 3)
    assert f"precision_digits needs at least {FEWEST} samples, got --n 3" in told
    np.save(tmp_path / "few.npy", np.zeros((4, 12, 12), dtype=np.uint8))
    told = refused(capsys, tmp_path, *digits, "--n", 40, "--reference", tmp_path / "few.npy")
    assert f"precision_digits needs at least {FEWEST} images in the reference, which has 4" in told
    (tmp_path / "fussy.py").write_text(PLUGIN)
    told = refused(capsys, tmp_path, "--plugin", tmp_path / "fussy.py", "--metrics", "fussy", "--n", 49)
    assert "fussy needs at least 50 samples, got --n 49" in told


@pytest.mark.parametrize("n", [FEWEST, 20, 21, 39, 40, 41])
def test_as_many_as_a_metric_asks_for_are_enough(n):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(FEWEST, 2)).astype(np.float32)
    reference = Reference("r", FEWEST, np.zeros(2), np.eye(2), "", "digits-0", rows)
    sums = GroupedStatistics(n, 2, keep_features=True)
    sums.add(rng.normal(size=(n, 2)).astype(np.float32), range(n))
    assert 0 <= ManifoldMetric("recall", "digits", "recall").score(sums, reference).value <= 1


def test_the_measures_name_what_there_is_too_little_of():
    with pytest.raises(Exception, match="more than 5 samples beside the 1 of a jackknife group, got 3"):
        neighbourhoods(torch.zeros(3, 2), torch.zeros(9, 2), [slice(0, 1), slice(1, 2), slice(2, 3)])


def test_numbers_beyond_any_use_are_answered_at_once(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(MODEL)
    np.save(tmp_path / "images.npy", np.zeros((9, 4, 4), dtype=np.uint8))
    continuous = ("--model", f"{tmp_path / 'mine.py'}:make", "--reference", tmp_path / "images.npy")
    began = time.monotonic()
    told = refused(capsys, tmp_path, "--n", 10**12, "--dry-run")
    assert "--n must be at most 100,000,000 samples, got 1,000,000,000,000" in told
    told = refused(capsys, tmp_path, *continuous, "--n", 10, "--steps", 10**11, "--dry-run")
    assert "every number of steps must be at most 100,000, got 100,000,000,000" in told
    told = refused(capsys, tmp_path, "--n", 10, "--seed", 2**63)
    assert "--seed must be at most 2^63 - 1" in told
    dry = ["run", "--samplers", "ddim", "--steps", "4", "--n", str(MOST_SAMPLES), "--batch", "1", "--dry-run"]
    assert main([*dry, "--model", "exact-gaussian", "--results", str(tmp_path / "r")]) == 0
    assert "400,000,000 network evaluations" in capsys.readouterr().out
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(("n", "batch"), [(1, 1), (10, 3), (9, 3), (3, 10)])
def test_blocks_are_counted_as_they_are_listed(n, batch):
    trial = Trial("m", "s", "uniform", 10, n, 0, batch, "float32", "cpu", ())
    assert trial.block_count == len(trial.blocks)
