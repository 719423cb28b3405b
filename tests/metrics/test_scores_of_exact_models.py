"""Scores of the whole pipeline against closed forms: sampler, noise, moments and distance at once."""

import math

import numpy as np
import pytest

from bench import NoiseSchedule, UsageError, get_sampler, load_results, make_grid
from bench.commands.main import main
from bench.commands.options import parse_metrics
from bench.diffusion.orders import output_variance
from models.exact import bench_models


def gaussian():
    return next(card for card in bench_models() if card.name == "exact-gaussian").load()


@pytest.mark.parametrize("spec", ["ddim:eta=0", "ddim:eta=1", "ddpm:variance=fixedlarge,clip=none"])
def test_the_distance_to_the_law_is_the_closed_form(spec, tmp_path):
    """Every principal direction of Gaussian data is sampled alone, so the output's law is known.

    Its covariance has the data's directions with variance v(s), the oracle's for data of sd s, and the
    Frechet distance of commuting Gaussians is the sum of (sqrt v(s) - s)^2. The mean direction is linear too.
    """
    model, schedule = gaussian(), NoiseSchedule.linear()
    grid = make_grid(schedule, 10)
    sds = np.sqrt(np.linalg.eigvalsh(model.law_covariance.numpy()))
    truth = sum((math.sqrt(output_variance(get_sampler(spec), schedule, grid, sd)) - sd) ** 2 for sd in sds)
    # The mean: x_T has mean zero where the forward process has sqrt(abar_T) m. With a short first jump its
    # share of the end is below a thousandth of the distance.
    options = ["--model", "exact-gaussian", "--metrics", "fd_law", "--n", "4000", "--batch", "500"]
    assert (
        main(["run", *options, "--samplers", spec, "--steps", "10", "--results", str(tmp_path), "--json"])
        == 0
    )
    table = load_results(tmp_path)
    row = table[table.status == "done"].iloc[0]
    assert row.metric == "fd_law"
    assert row.fd_law_debiased == pytest.approx(truth, abs=4 * row.fd_law_se, rel=0.05)


def test_a_model_without_a_law_has_no_distance_to_it(tmp_path, capsys):
    assert main(["run", "--metrics", "fd_law", "--results", str(tmp_path)]) == 2
    assert "fd_law is the distance to a known law; 'digits' has none" in capsys.readouterr().err


def test_imported_statistics_are_a_reference(tmp_path, capsys):
    """The same mean and covariance from a file give the same distance as the images they are of."""
    assert main(["stats", "digits-held-out", "--metric", "fd_pixels", "--out", str(tmp_path / "s.npz")]) == 0
    values = []
    for reference in ("digits-held-out", str(tmp_path / "s.npz")):
        folder = tmp_path / str(len(values))
        options = [
            "--model",
            "exact-digits",
            "--metrics",
            "fd_pixels",
            "--n",
            "300",
            "--reference",
            reference,
        ]
        options += ["--samplers", "ddim", "--steps", "5", "--results", str(folder)]
        assert main(["run", *options]) == 0, capsys.readouterr().err
        values.append(load_results(folder).set_index("sampler").loc["ddim"].score)
    assert values[0] == pytest.approx(values[1], rel=1e-9)


def test_prdc_stands_for_four():
    four = ("precision", "recall", "density", "coverage")
    assert parse_metrics("fid,prdc") == ("fid", *four)
    assert parse_metrics("prdc_digits,fd_digits") == (*(f"{one}_digits" for one in four), "fd_digits")
    assert parse_metrics("fd_inception_768") == ("fd_inception_768",)


def test_many_scores_in_one_run(tmp_path):
    names = "fd_digits,kid_digits,prdc_digits,copying_pixels,sliced_wasserstein_pixels"
    options = [
        "--metrics",
        names,
        "--samplers",
        "ddim",
        "--steps",
        "10",
        "--n",
        "200",
        "--results",
        str(tmp_path),
    ]
    assert main(["run", "--model", "exact-digits", "--reference", "digits-held-out", *options]) == 0
    row = load_results(tmp_path).set_index("sampler").loc["ddim"]
    for name in parse_metrics(names):
        assert math.isfinite(row[name]), name
    for name in ("precision_digits", "recall_digits", "coverage_digits"):
        assert 0 <= row[name] <= 1


def test_usage_error_is_a_value_error():
    assert issubclass(UsageError, ValueError)
