"""Learned time points and coefficients: a file is a time grid, its weights are a rule, its calls a column."""

import json

import pytest
import torch
from support.commands import bench

from bench import NoiseSchedule, NotApplicable, TrajectoryNoise, UsageError, get_sampler, load_results, sample
from bench import make_grid as grid_of
from bench.diffusion.learned import read_learned
from bench.diffusion.orders import MixtureOracle
from bench.report.tables.scores import score_sheet
from bench.report.tables.table import tables_of
from samplers.ode import Level, sigma_weights

LINEAR = NoiseSchedule.linear()


def write(path, *solvers, **more):
    """A file of learned solvers."""
    path.write_text(json.dumps({"solvers": solvers, **more}))
    return str(path)


def sigmas_of(steps, spacing="edm"):
    """Levels of a grid."""
    return [Level.start(step).sigma for step in grid_of(LINEAR, steps, spacing)]


def lms_weights(sigmas, order):
    """The weights of Adams and Bashforth's rule, as a file has them."""
    levels = [Level(0, 1 / (1 + sigma**2)) for sigma in [*sigmas, 0.0]]
    rows = []
    for k in range(len(sigmas)):
        known = levels[max(0, k + 1 - order) : k + 1][::-1]
        own = sigma_weights(known, levels[k + 1])
        rows.append([0.0] * (k + 1 - len(own)) + own[::-1])
    return rows


def drawn(spec, grid):
    """x_0 of a sampler on the exact mixture, in float64."""
    model = MixtureOracle(LINEAR)
    noise = TrajectoryNoise(0, range(4), model.shape)
    return sample(model, get_sampler(spec), grid, noise.initial().double(), noise)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_weights_of_a_known_rule_give_its_trajectory(tmp_path, order, steps):
    sigmas = sigmas_of(steps)
    file = write(tmp_path / "w.json", {"sigmas": sigmas, "weights": lms_weights(sigmas, order)})
    grid = grid_of(LINEAR, steps, file)
    ours = drawn("ddim" if order == 1 else f"lms:order={order}", grid)
    assert (drawn(f"learned:file={file}", grid) - ours).abs().max() < 1e-12
    assert torch.isfinite(ours).all()


def test_a_file_is_a_grid_of_its_levels_however_they_are_told(tmp_path):
    edm = grid_of(LINEAR, 5, "edm")
    times = list(edm.timesteps)
    sigmas = sigmas_of(5)
    logsnr = [-2 * float(torch.tensor(sigma).log()) for sigma in sigmas]
    for kind, levels in (("sigmas", sigmas), ("logsnr", logsnr), ("times", times)):
        made = grid_of(LINEAR, 5, write(tmp_path / f"{kind}.json", {kind: levels}))
        assert made.timesteps == pytest.approx(times, abs=1e-4)


def test_each_number_of_steps_has_its_own_solver(tmp_path):
    file = write(tmp_path / "t.json", {"times": [999, 0]}, {"times": [999, 500, 100]}, source="somebody")
    assert grid_of(LINEAR, 2, file).timesteps == (999, 0)
    assert grid_of(LINEAR, 3, file).timesteps == (999, 500, 100)
    with pytest.raises(UsageError, match="has solvers of 2, 3 steps, not of 4; give --steps 2, 3"):
        grid_of(LINEAR, 4, file)
    assert read_learned(tmp_path / "t.json").source == "somebody"


def test_weights_are_refused_on_other_levels_and_where_there_are_none(tmp_path):
    sigmas = sigmas_of(5)
    file = write(
        tmp_path / "w.json", {"sigmas": sigmas, "weights": lms_weights(sigmas, 1)}, {"times": [9, 0]}
    )
    with pytest.raises(NotApplicable, match="give --spacing"):
        drawn(f"learned:file={file}", grid_of(LINEAR, 5, "uniform"))
    with pytest.raises(NotApplicable, match="has no weights for 2 steps"):
        drawn(f"learned:file={file}", grid_of(LINEAR, 2, file))
    with pytest.raises(NotApplicable, match="needs a file of weights"):
        drawn("learned", grid_of(LINEAR, 2, file))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is no JSON"),
        ("[]", "holds no learned solvers"),
        ('{"solvers": []}', "holds no learned solvers"),
        ('{"solvers": [{"level": [1]}]}', "needs one of sigmas, logsnr, times"),
        ('{"solvers": [{"times": [1, "x"]}]}', "holds no learned solvers"),
        ('{"solvers": [{"times": [9, 0], "weights": [[1], [1]]}]}', "lists of 1 to 2 numbers, got"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(UsageError, match=sentence.replace("[", r"\[")):
        read_learned(tmp_path / "w.json")
    with pytest.raises(UsageError, match="cannot read"):
        read_learned(tmp_path / "missing.json")


def test_a_sweep_of_learned_and_other_grids_tells_the_calls_of_tuning(tmp_path):
    sigmas = sigmas_of(3)
    weights = lms_weights(sigmas, 2)
    file = write(tmp_path / "gits.json", {"sigmas": sigmas, "weights": weights}, tuning_calls=1200)
    out = bench(
        "run", "--model", "exact-gaussian", "--n", "40", "--samplers", "ddim", f"learned:file={file}",
        "--spacings", f"{file},edm", "--steps", "2,3", "--results", tmp_path / "r",
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert "network calls of tuning, before the run: ddim eta=0 on gits 1,200" in " ".join(out.stdout.split())
    assert "skipped: learned gits.json at S=2: gits.json has no weights for 2 steps" in out.stdout
    frame = load_results(tmp_path / "r").query("kind == 'samples'")
    assert set(frame[frame.spacing == file].steps) == {3}  # the file has no other
    assert set(frame[frame.spacing == file].tuning_calls) == {1200}
    assert frame[(frame.spacing == "edm") & (frame.sampler == "ddim")].tuning_calls.isna().all()
    alone = bench(
        "run", "--model", "exact-gaussian", "--n", "40", "--samplers", "ddim", "--spacing", file,
        "--results", tmp_path / "s",
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    assert "S=3" in alone.stdout
    from bench.records.store import Store

    (made,) = tables_of(Store(tmp_path / "s").read()[0])
    assert score_sheet(made).columns == ["sampler", "S=3"]
    assert made.rows == ["ddim eta=0"]


def test_a_changed_file_is_computed_anew(tmp_path):
    arguments = (
        "run",
        "--model",
        "exact-gaussian",
        "--n",
        "40",
        "--samplers",
        "ddim",
        "--results",
        tmp_path / "r",
    )
    file = write(tmp_path / "t.json", {"times": [999, 0]})
    assert bench(*arguments, "--spacing", file).returncode == 0
    assert "1 of 1 trials are there already" in bench(*arguments, "--spacing", file).stderr
    write(tmp_path / "t.json", {"times": [999, 10]})
    assert "time steps changed since" in bench(*arguments, "--spacing", file).stderr
