"""Measuring references: one pass for all spaces, kept on the way, and only when it is needed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.commands import bench

from bench import get_sampler, load_results
from bench.commands.main import main
from bench.errors import UsageError
from bench.metrics import measuring
from bench.metrics.inception_score import InceptionScore
from bench.metrics.kernel import KernelMetric
from bench.metrics.measuring import measure_references, reference_statistics
from bench.metrics.pixels import Pixels
from bench.metrics.space import get_space
from bench.plugins.lookup import load_model
from bench.records.store import Store, write_strip
from bench.stats.score import Score
from bench.sweep.preflight import memory
from bench.sweep.references import References
from bench.sweep.request import Sweep
from bench.sweep.runner import Runner
from bench.sweep.scoring import mean_of_scores

SHAPE = (1, 3, 3)
CPU = torch.device("cpu")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, size=(200, *SHAPE), dtype=np.uint8)


class Watched(Pixels):
    """The pixel space: keeps the batches that it is shown, and fails after so many."""

    def __init__(self, name, fails_after=None):
        super().__init__(SHAPE, name)
        object.__setattr__(self, "batches", [])
        object.__setattr__(self, "fails_after", fails_after)

    def __call__(self, images):
        if len(self.batches) == self.fails_after:
            raise KeyboardInterrupt
        self.batches.append(images)
        return super().__call__(images)


def test_several_spaces_take_one_pass_and_see_the_same_tensors(images, tmp_path):
    """Layers of one network recognise a batch they have seen by its being the same object."""
    one, two = Watched("one"), Watched("two")
    found = measure_references(images, [(one, "moments"), (two, "features")], batch=64, cache=tmp_path)
    assert [len(batch) for batch in one.batches] == [64, 64, 64, 8]
    assert all(a is b for a, b in zip(one.batches, two.batches, strict=True))
    alone = [
        reference_statistics(images, Watched(name), batch=64, cache=tmp_path / name)
        for name in ("one", "two")
    ]
    for together, single in zip(found, alone, strict=True):
        assert together.hash == single.hash
        assert np.array_equal(together.cov, single.cov)
    assert np.array_equal(found[1].features, images.reshape(200, 9).astype(np.float32) / 255)


@pytest.mark.parametrize("needs", ["moments", "features"])
def test_a_stopped_measurement_goes_on_to_the_same_bits(needs, images, tmp_path, monkeypatch):
    whole = reference_statistics(images, Watched("one"), needs=needs, batch=16, cache=tmp_path / "whole")
    monkeypatch.setattr(measuring, "KEEP_EVERY", 0.0)
    stopped = Watched("one", fails_after=7)
    with pytest.raises(KeyboardInterrupt):
        reference_statistics(images, stopped, needs=needs, batch=16, cache=tmp_path / "stopped")
    (part,) = (tmp_path / "stopped" / "references").iterdir()
    resumed = Watched("one")
    found = reference_statistics(images, resumed, needs=needs, batch=16, cache=tmp_path / "stopped")
    assert sum(map(len, stopped.batches)) + sum(map(len, resumed.batches)) == 200
    assert np.array_equal(found.mean, whole.mean)
    assert np.array_equal(found.cov, whole.cov)
    assert needs == "moments" or np.array_equal(found.features, whole.features)
    assert not part.exists()


def test_another_batch_size_goes_on_in_the_middle_of_a_batch(images, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "KEEP_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        reference_statistics(images, Watched("one", fails_after=3), batch=16, cache=tmp_path)
    resumed = Watched("one")
    found = reference_statistics(images, resumed, batch=100, cache=tmp_path)
    assert [len(batch) for batch in resumed.batches] == [52, 100]
    whole = reference_statistics(images, Watched("one"), cache=tmp_path / "whole")
    assert found.cov == pytest.approx(whole.cov, rel=1e-9, abs=1e-15)


def test_what_was_kept_of_other_images_or_is_damaged_is_not_gone_on_from(images, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "KEEP_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        reference_statistics(images, Watched("one", fails_after=3), batch=16, cache=tmp_path)
    changed = images.copy()
    changed[0, 0, 0, 0] ^= 1
    again = Watched("one")
    reference_statistics(changed, again, batch=16, cache=tmp_path)
    assert sum(map(len, again.batches)) == 200
    (part,) = (tmp_path / "references").glob("*.part.npz")
    part.write_bytes(part.read_bytes()[:300])
    again = Watched("one")
    reference_statistics(images, again, batch=16, cache=tmp_path)
    assert sum(map(len, again.batches)) == 200


def test_progress_counts_the_images(images, tmp_path):
    told = []
    reference_statistics(
        images,
        Pixels(SHAPE),
        batch=150,
        cache=tmp_path,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(150, 200), (200, 200)]


def test_a_plan_and_a_finished_sweep_measure_nothing(tmp_path, monkeypatch):
    sweep = Sweep(model="exact-gaussian", samplers=(get_sampler("ddim"),), steps=(5,), n=40)
    runner = Runner(sweep, Store(tmp_path))
    assert len(runner.plan().pending) == 1
    asked = ["run", "--model", "exact-gaussian", "--samplers", "ddim", "--steps", "5", "--n", "40"]
    assert main([*asked, "--results", str(tmp_path)]) == 0

    def refuse(*arguments, **options):
        raise AssertionError("references were measured")

    monkeypatch.setattr("bench.sweep.references.measure_references", refuse)
    runner = Runner(sweep, Store(tmp_path))
    plan = runner.plan()
    assert plan.pending == []
    assert plan.stale == []
    assert runner.floor() is not None


def test_statistics_alone_are_refused_for_scores_of_every_vector(tmp_path, capsys):
    np.savez(tmp_path / "reference.npz", mu=np.zeros(64), sigma=np.eye(64))
    asked = ["run", "--model", "exact-gaussian", "--reference", str(tmp_path / "reference.npz"), "--n", "40"]
    asked += ["--metrics", "fd_pixels,kid_pixels", "--results", str(tmp_path / "results")]
    assert main(asked) == 2
    assert "kid_pixels needs every feature vector of the reference: leave it out" in capsys.readouterr().err
    assert not list((tmp_path / "results").rglob("*.npz"))  # nothing was drawn
    images = np.zeros((2, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "reference.npz", mu=np.zeros(64), sigma=np.eye(64), arr_0=images)
    assert main(asked) == 2
    assert "which are what is used, and images (arr_0)" in capsys.readouterr().err


def test_a_score_without_a_reference_needs_none():
    loaded = load_model("exact-gaussian")
    space = get_space("pixels", loaded.model.shape)
    without = InceptionScore(space="pixels")
    found = References(_nowhere(loaded), [without], {"pixels": space}, CPU)
    assert found.of("inception_score").n == 0
    with pytest.raises(UsageError, match="does not say what its samples should resemble"):
        References(_nowhere(loaded), [without, KernelMetric("kid_pixels", "pixels")], {"pixels": space}, CPU)


def _nowhere(loaded):
    return replace(loaded, reference=None)


FAILS = """
from bench import hookimpl
from bench import Score


class Brightness:
    name, space, needs, higher_is_better = "brightness", "pixels", "moments", False

    def score(self, sample, reference):
        {body}


@hookimpl
def bench_metrics():
    return [Brightness()]
"""
GOOD = """value = abs(float(sample.total.mean.mean() - reference.mean.mean()))
        return Score("brightness", value, value, 0.1, (), sample.n, reference.space, reference.hash)"""


def test_a_metric_that_fails_costs_its_own_score_and_is_made_up_without_drawing_again(tmp_path):
    plugin = tmp_path / "brightness.py"
    plugin.write_text(FAILS.format(body='raise RuntimeError("no light")'))
    asked = ["run", "--plugin", plugin, "--model", "exact-gaussian", "--metrics", "fd_pixels,brightness"]
    asked += ["--samplers", "ddim", "--steps", "5", "--n", "40", "--results", tmp_path / "results"]
    out = bench(*asked)
    assert out.returncode == 1
    assert "Traceback" not in out.stderr
    assert "ddim eta=0 at S=5 (sampler-bench), metric brightness: RuntimeError: no light" in out.stderr
    table = load_results(tmp_path / "results").set_index("label")
    row = table.loc["ddim eta=0"]
    assert row.status == "failed"
    assert row.fd_pixels > 0
    assert table.loc["real images"].fd_pixels > 0
    assert f"{row.fd_pixels:.2g}"[:3] in out.stdout
    plugin.write_text(FAILS.format(body=GOOD))
    out = bench(*asked)
    assert out.returncode == 0, out.stderr
    again = load_results(tmp_path / "results").set_index("label").loc["ddim eta=0"]
    assert again.status == "done"
    assert again.brightness > 0
    assert again.fd_pixels == row.fd_pixels
    assert again.sampling_seconds == row.sampling_seconds  # of the blocks that were there
    assert not (tmp_path / "results" / "blocks").exists()


def test_a_reference_with_a_broken_image_is_refused(tmp_path, capsys):
    """A score against 59 of the 60 images that were named would be another one."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        write_strip(folder / f"{i}.png", torch.full((1, 1, 8, 8), 80 * i, dtype=torch.uint8))
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:40])
    asked = [
        "run",
        "--model",
        "exact-gaussian",
        "--reference",
        str(folder),
        "--samplers",
        "ddim",
        "--n",
        "40",
    ]
    assert main([*asked, "--results", str(tmp_path / "results")]) == 2
    assert str(folder / "1.png") in capsys.readouterr().err


@pytest.mark.parametrize("keys", [("images",), ("mu", "sigma")])
def test_a_damaged_archive_is_a_sentence(keys, tmp_path, capsys):
    path = tmp_path / "damaged.npz"
    noise = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez_compressed(path, **dict.fromkeys(keys, noise))
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)
    asked = ["run", "--model", "exact-gaussian", "--reference", str(path), "--samplers", "ddim", "--n", "40"]
    assert main([*asked, "--results", str(tmp_path / "results")]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {path} ")
    assert len(told.splitlines()) == 1


def test_results_that_cannot_be_written_on_the_way_are_a_sentence(tmp_path, capsys):
    (tmp_path / "blocks").write_text("a file where a folder is to be")
    asked = ["run", "--model", "exact-gaussian", "--samplers", "ddim", "--steps", "5", "--n", "40"]
    assert main([*asked, "--results", str(tmp_path)]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: ")
    assert str(tmp_path / "blocks") in told
    assert "give the same command again" in told


def test_the_error_of_a_mean_keeps_what_all_scores_share():
    """Five folds with own error 2 and a shared one of 1.5: sqrt(4 / 5 + 2.25)."""
    own = tuple(np.array([-1.0, 1.0]) * 2)  # two groups: the jackknife error is half their distance
    score = Score("kid", 0.0, 0.0, 2.5, own, 100, "space", "reference")
    assert mean_of_scores([score] * 5).se == pytest.approx((4 / 5 + 2.25) ** 0.5)
    alone = replace(score, se=2.0)
    assert mean_of_scores([alone] * 5).se == pytest.approx((4 / 5) ** 0.5)


def test_kept_features_are_counted_before_a_sweep():
    sweep = Sweep(model="m", samplers=(get_sampler("ddim"), get_sampler("sigma-hat")), n=50_000)
    space = Pixels((1, 1, 2048))
    without = memory(sweep, None, None, [space])
    kept = memory(sweep, None, None, [space], [space])
    # of two trials and the reference in 4 bytes, and of sample and reference in 8
    assert kept.total - without.total == (3 * 4 + 2 * 8) * 50_000 * 2048
    assert "features 2.7" in str(kept)
