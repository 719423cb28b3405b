"""Presets: the published protocol, what is said before hours of work, and the table that comes of it."""

import argparse
import hashlib
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.presets import TABLE
from support.reports import record

from bench import ContinuousSchedule, NoiseSchedule, get_sampler, load_results, make_grid
from bench.commands import run, usage
from bench.commands.main import main
from bench.commands.usage import run_options
from bench.data.sets import load_images, set_hash
from bench.diffusion.calls import count_calls
from bench.diffusion.orders import GaussianOracle
from bench.errors import UsageError
from bench.metrics.space import fingerprint
from bench.plugins.lookup import load_model
from bench.published.presets import PRESETS, get_preset
from bench.records.store import Store
from bench.records.trial import Cost
from bench.report.tables.comparison import LEAST, compare_published
from bench.sweep.preflight import GIB, _wrong_images, memory, missing_requirements

CIFAR = get_preset("ddim-table1-cifar10")
LINEAR = NoiseSchedule.linear()


def sweep(*arguments):
    parser = argparse.ArgumentParser()
    run_options(parser)
    options = parser.parse_args(arguments)
    return run._sweep(options, get_preset(options.preset) if options.preset else None)


def test_the_protocol_of_the_ddim_table():
    asked = sweep("--preset", "ddim-table1-cifar10")
    assert (asked.model, asked.n, asked.metrics, asked.precision) == (
        "ema_cifar10",
        50_000,
        ("fid",),
        "float32",
    )
    assert asked.steps == (10, 20, 50, 100, 1000)
    assert asked.reference == "cifar10"
    labels = [sampler.spec for sampler in asked.samplers]
    assert labels == [
        "ddim:eta=0,clip=none", "ddim:eta=0.2,clip=none", "ddim:eta=0.5,clip=none", "ddim:eta=1,clip=none",
        "ddpm:variance=fixedlarge,clip=x0",
    ]  # fmt: skip
    ten = make_grid(LINEAR, 10, *asked.spacings_of(10))
    assert sorted(ten.timesteps) == [0, 9, 39, 88, 158, 246, 355, 483, 632, 800]  # the paper's quadratic
    assert sorted(make_grid(LINEAR, 1000, *asked.spacings_of(1000)).timesteps) == list(range(1000))


def test_celeba_is_uniform_and_improved_ddpm_goes_to_four_thousand():
    celeba = sweep("--preset", "ddim-table1-celeba64")
    assert sorted(make_grid(LINEAR, 10, *celeba.spacings_of(10)).timesteps) == list(range(0, 1000, 100))
    steps = sweep("--preset", "iddpm-steps")
    assert steps.steps == (25, 50, 100, 200, 400, 1000, 4000)
    cosine = NoiseSchedule.cosine(4000)
    assert sorted(make_grid(cosine, 4000, *steps.spacings_of(4000)).timesteps) == list(range(4000))
    assert [f.value for f in get_preset("iddpm-steps").values()] == [3.19]


def test_an_option_given_changes_the_preset_and_nothing_else():
    quick = sweep("--preset", "ddim-table1-cifar10", "--quick")
    assert (quick.n, quick.steps) == (5000, CIFAR.steps)
    mine = sweep("--preset", "ddim-table1-cifar10", "--model", "digits", "--n", "1000", "--steps", "10")
    assert (mine.model, mine.n, mine.steps, mine.spacings) == ("digits", 1000, (10,), ("quadratic",))
    assert (mine.metrics, mine.reference) == ((), None)  # the model's own
    even = sweep("--preset", "ddim-table1-cifar10", "--spacing", "uniform")
    assert even.spacings_of(1000) == ("uniform",)


def test_without_a_preset_nothing_changes():
    asked = sweep()
    assert (asked.model, asked.n, asked.steps, asked.spacings) == (
        "digits",
        1000,
        (10, 20, 50, 100, 1000),
        ("uniform",),
    )
    assert len(asked.samplers) == 19  # the paper's seven and the fast ones that are none of them
    with pytest.raises(UsageError, match="--n must be at least 2 samples, got 0"):
        sweep("--n", "0")  # it is not taken for "not given"
    with pytest.raises(UsageError, match="--quick belongs to a --preset"):
        sweep("--quick")


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """A machine without weights."""
    monkeypatch.setenv("SAMPLER_BENCH_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("SAMPLER_BENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SAMPLER_BENCH_INCEPTION", str(tmp_path / "inception.pth"))
    return tmp_path


def test_every_lack_is_one_sentence_before_anything_is_computed(nothing, capsys):
    assert main(["run", "--preset", "ddim-table1-cifar10", "--results", str(nothing / "r")]) == 1
    weights, data, features = capsys.readouterr().err.splitlines()
    assert weights.startswith(
        "error: ema_cifar10 is not on this machine: put model-790000.ckpt (about 143 MB, md5:1fa350"
    )
    assert data.startswith(f"error: CIFAR-10 is not in {nothing}")
    assert "get cifar-10-python.tar.gz (170,498,071 bytes)" in data
    assert "inception.pth, does not exist; get weights-inception-2015-12-05" in features
    assert not (nothing / "r").exists()


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((20, 28, 28), "the reference has images of shape (1, 28, 28), and the table is of (3, 32, 32)"),
        ((20, 32, 32, 3), "the reference has 20 images: give --reference with the 50,000 training images"),
    ],
)
def test_other_images_are_not_the_tables(nothing, shape, sentence):
    np.savez(nothing / "images.npz", images=np.zeros(shape, np.uint8))
    asked = sweep("--preset", "ddim-table1-cifar10", "--reference", str(nothing / "images.npz"))
    assert any(sentence in lack for lack in missing_requirements(CIFAR, asked))
    own = sweep(
        "--preset",
        "ddim-table1-cifar10",
        "--model",
        "exact-mixture",
        "--reference",
        str(nothing / "images.npz"),
    )
    assert not any(sentence in lack for lack in missing_requirements(CIFAR, own))


def test_the_known_images_are_those_of_the_published_batches(test_data):
    """The binary batches' MD5 are public: they are what scripts that fetch CIFAR-10 check."""
    data = load_images(test_data / "cifar10_train.npz")
    rows = torch.cat([data.labels[:, None].to(torch.uint8), data.images.flatten(1)], 1).split(10_000)
    assert [hashlib.md5(batch.numpy().tobytes()).hexdigest() for batch in rows] == [
        "5dd7e06a14cb22eb9f671a540d1b7c25",
        "5ea93a67294ea407fff1d09f752e9692",
        "942cd6a4bcdd0dd3c604fbe906cb4421",
        "ae636b3ba5c66a11e91e8cb52e771fcb",
        "53f37980c15c3d472c316c40844f3f0d",
    ]
    assert set_hash(data.images) == CIFAR.image_hash
    assert list(_wrong_images(CIFAR, data.images.flip(0))) == []  # in whatever order
    one_level_off = data.images.clone()
    one_level_off[49_999, 2, 31, 31] ^= 1
    (sentence,) = _wrong_images(CIFAR, one_level_off)
    assert sentence.startswith(
        "the reference's images are not the 50,000 training images of CIFAR-10 (SHA-256"
    )
    assert f"not {CIFAR.image_hash[:16]}...): get them again" in sentence


def test_statistics_are_a_reference_and_must_fit_the_feature_space(tmp_path):
    def asked(name, mean, covariance):
        np.savez(tmp_path / name, mu=mean, sigma=covariance)
        given = ["--model", "exact-gaussian", "--reference", str(tmp_path / name)]
        return sweep("--preset", "ddim-table1-cifar10", *given)

    d = math.prod(load_model("exact-gaussian").model.shape)
    assert list(missing_requirements(CIFAR, asked("whole.npz", np.zeros(d), np.eye(d)))) == []
    (sentence,) = missing_requirements(CIFAR, asked("seven.npz", np.zeros(7), np.eye(7)))
    assert f"seven.npz has 7 features, pixels has {d}: give statistics of that space" in sentence
    (sentence,) = missing_requirements(CIFAR, asked("damaged.npz", np.zeros((2, 2)), np.eye(2)))
    assert "damaged.npz holds mu (2, 2) and sigma (2, 2), not (d,) and (d, d)" in sentence


def test_too_little_memory_is_said_with_what_needs_it(monkeypatch):
    asked = sweep("--preset", "ddim-table1-cifar10", "--model", "exact-mixture")
    assert list(missing_requirements(CIFAR, asked)) == []
    monkeypatch.setattr("bench.sweep.preflight.available_memory", lambda: GIB)
    (sentence,) = missing_requirements(CIFAR, asked)
    assert re.match(
        r"about 2\.0 GiB of memory are needed \(weights 0\.0, .*\), 1\.0 are free; close", sentence
    )


def test_the_memory_of_a_2048_d_sweep():
    class Space:
        name, dim, fingerprint = "inception_2048", 2048, fingerprint("inception_2048")

    # five samplers of 22 sets of 2048 * 2049 / 2 doubles, and three matrices
    expected = 5 * 22 * 2048 * 2049 // 2 * 8 + 3 * 2048**2 * 8
    assert memory(sweep("--preset", "ddim-table1-cifar10"), None, None, [Space()]).statistics == expected


def test_a_presets_sweep_ends_with_the_published_table_and_one_table_of_ours(tmp_path, capsys):
    arguments = [
        "run",
        "--preset",
        "ddim-table1-cifar10",
        "--model",
        "exact-gaussian",
        "--n",
        "20",
        "--steps",
    ]
    arguments += ["10,1000", "--samplers", "ddim", "sigma-hat", "--results", str(tmp_path)]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert f"4 trials of 20 images to compute: {2 * 1010 * 20:,} network evaluations, about" in told.err
    assert "4 not comparable, 21 not run. Not comparable: other model: exact-gaussian" in " ".join(
        told.out.split()
    )
    assert "Claims by shape: exact-gaussian" in told.out
    frame = load_results(tmp_path)
    assert set(zip(frame.steps, frame.spacing, strict=True)) == {
        (10, "quadratic"),
        (1000, "all"),
        (0, "quadratic"),
    }
    assert [path.name for path in (tmp_path / "tables").glob("*.txt")] == [
        "exact-gaussian-fd_pixels-quadratic.txt"
    ]
    assert (
        main(["table", "--preset", "ddim-table1-cifar10", "--results", str(tmp_path), "--format", "csv"]) == 0
    )
    assert "ddim eta=0,1000,fd_pixels," in capsys.readouterr().out
    assert main(["verify", str(tmp_path)]) == 0
    assert not Store(tmp_path).blocks.exists()


def test_presets_are_named_where_one_is_misspelt(capsys):
    assert main(["run", "--preset", "ddim-table1-cifar"]) == 2
    assert "unknown preset 'ddim-table1-cifar'; did you mean ddim-table1-cifar10" in capsys.readouterr().err
    assert tuple(PRESETS) == usage.PRESETS


def test_a_table_by_network_calls_runs_each_row_on_its_own_grid():
    preset = get_preset("edm-cifar10-uncond")
    asked = sweep("--preset", preset.name)
    assert asked.calls == (3, 4, 5, 6, 7, 8, 9, 10)
    parts = run._by_grid(asked, preset)
    assert {part.spacings: [one.label for one in part.samplers] for part in parts} == {
        ("edm:rho=7,stop=true",): ["ddim eta=0", "heun", "dpm2", "ipndm order=4", "ipndm-v order=4"],
        ("logsnr:stop=true",): ["dpmpp order=3 lowered", "unipc order=3 bh2 lowered"],
        ("vp:rho=2,stop=true",): ["deis order=4 vp"],
    }
    assert sweep("--preset", preset.name, "--steps", "5").calls == ()
    assert sweep("--preset", preset.name, "--calls", "5").calls == (5,)


def test_the_rows_of_a_table_by_calls_stand_beside_its_published_values(tmp_path):
    preset = get_preset("edm-cifar10-uncond")
    options = ["--model", "exact-gaussian", "--n", "40", "--results", str(tmp_path)]
    assert main(["run", "--preset", preset.name, *options]) == 0
    table = compare_published(preset, Store(tmp_path).read()[0])
    printed = {(cell.sampler, cell.column): cell.printed.value for cell in table.cells}
    assert printed["heun", 4] == 319.87  # the table of the README
    assert printed["ddim eta=0", 10] == 15.69
    assert printed["ipndm-v order=4", 3] == 67.58
    assert printed["deis order=4 vp", 5] == 14.39
    assert len(printed) == 6 * 8 + 2 * 4  # two rows of two calls a step
    assert all(cell.record.cost.calls == cell.column for cell in table.cells)
    assert not [reason for cell in table.cells for reason in cell.reasons if "spacing" in reason]
    assert table.sheet().columns[1] == "calls"


def test_every_published_cell_of_a_preset_is_found():
    for preset in PRESETS.values():
        there = [f for f in preset.values() if (f.nfe if preset.calls else f.steps) in preset.columns]
        names = {row.name for row in preset.rows}
        rows = [f for f in there if not preset.calls or f.sampler in names]
        cells = [cell for cell in compare_published(preset, []).cells if cell.printed is not None]
        assert len(cells) == len(rows), preset.name
        assert cells


def test_the_documented_table_is_that_of_the_presets():
    assert TABLE.written() == TABLE.make()


def test_a_file_of_the_models_name_is_the_table_s_model():
    preset = get_preset("edm-ffhq64")
    assert preset.is_model("/data/edm-ffhq-64x64-uncond-vp.safetensors")
    assert preset.is_model("edm-ffhq-64x64-uncond-vp.safetensors:label=uniform")
    assert not preset.is_model("/data/edm-ffhq-64x64-uncond-ve.safetensors")


def test_dpm_solver_fast_makes_the_calls_of_its_table(tmp_path):
    preset = get_preset("dpm-solver-cifar10")
    schedule = ContinuousSchedule.vp()
    model = GaussianOracle(schedule)
    for row, steps, calls in zip(preset.rows, (4, 7), (10, 20), strict=True):
        grid = make_grid(schedule, steps, preset.spacing)
        assert count_calls(model, get_sampler(row.sampler), grid) == calls
    assert preset.is_model("mine.py:cifar10_ddpmpp_deep_continuous")
    assert [(cell.column, cell.printed.value) for cell in compare_published(preset, []).cells] == [
        (10, 4.70),
        (20, 2.87),
    ]


def test_a_model_that_must_be_converted_is_told_how(nothing, capsys):
    assert main(["run", "--preset", "edm-ffhq64", "--results", str(nothing / "r")]) == 1
    model, reference, *_ = capsys.readouterr().err.splitlines()
    assert model.endswith("docs/networks.md says and give --model PATH/edm-ffhq-64x64-uncond-vp.safetensors")
    assert "give --reference with the images that FFHQ 64x64 is of" in reference


def test_the_least_of_three_runs_is_compared_as_what_it_is():
    """Three draws of N(mu, s^2) have a least of mu - 0.846 s; 200,000 of them say so, and its variance."""
    low = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0)).amin(1)
    mean, variance = LEAST[3]
    assert float(low.mean()) == pytest.approx(mean, abs=0.005)
    assert float(low.var()) == pytest.approx(variance, abs=0.01)
    preset = get_preset("edm-heun-cifar10")
    ours = record("heun", 18, 1.99, se=0.03, model=preset.model, spacing="edm:rho=7", n=50_000, metric="fid")
    ours = replace(ours, cost=Cost(35, 1.0, 0.8))
    (cell,) = compare_published(preset, [ours]).cells
    assert cell.printed.value == 1.97
    assert cell.difference == pytest.approx(1.99 + mean * 0.03 - 1.97)
    assert cell.se == pytest.approx(0.03 * math.sqrt(1 + variance))
    assert cell.verdict == "reproduced"


def test_calls_in_the_place_of_steps(tmp_path):
    options = ["--model", "exact-gaussian", "--n", "20", "--calls", "4,5", "--spacing", "linspace"]
    assert sweep("--samplers", "heun", "--calls", "4").too_many(get_sampler("heun"), 1000) is False
    assert main(["run", "--samplers", "ddim", "heun", "unipc", *options, "--results", str(tmp_path)]) == 0
    frame = load_results(tmp_path).query("kind == 'samples'")
    found = set(zip(frame.label, frame.steps, frame.network_calls, strict=True))
    assert found == {
        ("ddim eta=0", 4, 4), ("ddim eta=0", 5, 5), ("heun", 2, 3), ("heun", 3, 5),
        ("unipc order=3", 4, 4), ("unipc order=3", 5, 5),
    }  # fmt: skip


def test_calls_and_steps_exclude_each_other(capsys):
    assert main(["run", "--steps", "5", "--calls", "5"]) == 2
    assert "not allowed with" in capsys.readouterr().err
    assert main(["run", "--calls", "0", "--dry-run"]) == 2
    assert "--calls takes numbers from 1 on, got 0" in capsys.readouterr().err
