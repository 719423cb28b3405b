"""Samplers of other libraries: the same rule as ours to rounding, on our noise, their known faults told."""

import importlib.util
import math
import sys
from importlib import metadata

import pytest
import torch
from support.equivalences import NAMES, OTHERS, verdict_of

from bench import NoiseSchedule, NotApplicable, TrajectoryNoise, UsageError, get_sampler, make_grid, sample
from bench.commands.main import main
from bench.diffusion.calls import count_calls
from bench.diffusion.conformance import check_clause
from bench.diffusion.equivalence import likenesses
from bench.diffusion.orders import GaussianOracle, MixtureOracle
from bench.records.store import Store
from samplers import k_diffusion_samplers
from samplers.ode import Level
from samplers.others import level_of_sigma, split_call

DIFFUSERS = pytest.mark.skipif(not importlib.util.find_spec("diffusers"), reason="diffusers is not installed")
K_DIFFUSION = pytest.mark.skipif(
    not importlib.util.find_spec("k_diffusion"), reason="k-diffusion is not installed"
)
LINEAR = NoiseSchedule.linear()


def drawn(spec, steps=10, spacing="linspace", model=None):
    """x_0 of a sampler on the exact mixture, in float64."""
    model = model or MixtureOracle(LINEAR)
    grid = make_grid(LINEAR, steps, spacing)
    noise = TrajectoryNoise(0, range(4), model.shape)
    start = noise.initial().double()
    return sample(model, get_sampler(spec), grid, start, lambda k, draw=0: noise(k, draw).double())


def kept(spec, beginning):
    """Whether a sampler keeps the clause that begins so; None where it does not apply."""
    from bench.diffusion.conformance import CLAUSES

    (text,) = [text for text in CLAUSES if text.startswith(beginning)]
    return check_clause(get_sampler(spec), text).kept


@K_DIFFUSION
@pytest.mark.parametrize(("ours", "theirs"), [(o, k) for o, k, _, _ in OTHERS if k])
def test_k_diffusion_s_samplers_are_ours_to_rounding(ours, theirs):
    pair = [get_sampler(ours), get_sampler(f"k-diffusion:{theirs}")]
    for found in likenesses(pair, (10, 20), "linspace"):
        assert max(found.differences) < 1e-10, found.verdict


@DIFFUSERS
@pytest.mark.parametrize(("ours", "theirs"), [(o, d) for o, _, d, _ in OTHERS if d and "DEIS" not in d])
@pytest.mark.parametrize("spacing", ["linspace", "logsnr"])
def test_diffusers_schedulers_are_ours_to_float32_on_any_grid(ours, theirs, spacing):
    pair = [get_sampler(ours), get_sampler(f"diffusers:{theirs}")]
    (found,) = likenesses(pair, (10,), spacing)
    assert max(found.differences) < 1e-5, found.verdict


@DIFFUSERS
@K_DIFFUSION
def test_the_document_has_the_names_as_they_run():
    assert NAMES.written() == NAMES.make()


@K_DIFFUSION
def test_churn_takes_the_noise_of_its_step():
    ours, theirs = "edm:churn=5,churn_max=20", "k-diffusion:heun?s_churn=5&s_tmax=20"
    assert (drawn(ours) - drawn(theirs)).abs().max() < 1e-12


@K_DIFFUSION
def test_k_diffusion_is_imported_without_what_it_does_not_need_and_leaves_no_half_package():
    drawn("k-diffusion:euler")
    assert not [name for name in sys.modules if name.partition(".")[0] == "k_diffusion"]


@K_DIFFUSION
def test_noise_that_is_not_used_is_not_drawn():
    assert kept("k-diffusion:heun", "adds no noise at the last step")


@K_DIFFUSION
@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("k-diffusion:dpmpp_2n", "unknown sampler of k-diffusion 'dpmpp_2n'; did you mean dpmpp_2m"),
        ("k-diffusion:dpm_adaptive", "unknown sampler of k-diffusion"),
        ("k-diffusion:heun?churn=1", "argument of k-diffusion's heun"),
        ("k-diffusion:heun?s_churn", "expected key=value after the question mark, got 's_churn'"),
        ("k-diffusion:heun?sigmas=3", "the benchmark gives sigmas itself"),
    ],
)
def test_a_wrong_name_of_k_diffusion_is_one_sentence(spec, sentence, capsys):
    assert main(["run", "--samplers", spec, "--dry-run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


@DIFFUSERS
@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            "diffusers:DDIN",
            "for a noise predictor 'DDINScheduler'; did you mean",
        ),
        ("diffusers:FlowMatchEulerDiscrete", "unknown scheduler of diffusers for a noise predictor"),
        ("diffusers:DDIM?order=1", "argument of DDIMScheduler"),
        ("diffusers:DDIM?beta_start=0.1", "the benchmark gives beta_start itself"),
    ],
)
def test_a_wrong_name_of_diffusers_is_one_sentence(spec, sentence, capsys):
    assert main(["run", "--samplers", spec, "--dry-run"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert sentence in line


def test_a_library_that_is_not_there_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    k_diffusion_samplers._module.cache_clear()  # as in a process that has not imported it
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "k_diffusion" else find(name, *rest)
    )
    for spec in ("diffusers:DDIM", "k-diffusion:euler"):
        assert main(["run", "--samplers", spec, "--dry-run"]) == 2
        assert f"pip install 'sampler-bench[{spec.partition(':')[0]}]'" in capsys.readouterr().err


@DIFFUSERS
def test_another_version_of_the_library_makes_a_record_stale(tmp_path, monkeypatch, capsys):
    options = ["--model", "exact-gaussian", "--n", "20", "--steps", "2", "--results", str(tmp_path)]
    command = ["run", "--samplers", "diffusers:DDIM?clip_sample=false", *options]
    assert main(command) == 0
    (record,) = [r for r in Store(tmp_path).read()[0] if r.kind == "samples"]
    assert record.provenance["version of diffusers"] == metadata.version("diffusers")
    assert main(command) == 0
    assert "1 of 1 trials are there already" in capsys.readouterr().err
    monkeypatch.setattr(metadata, "version", lambda name: "99")
    assert main(command) == 0
    assert "version of diffusers changed since" in capsys.readouterr().err


@DIFFUSERS
def test_a_choice_is_read_back_from_its_text():
    spec = "diffusers:DPMSolverMultistepScheduler?algorithm_type=sde-dpmsolver++&solver_order=2"
    made = get_sampler(spec)
    assert get_sampler(made.spec) == made
    assert made.label == spec.replace(":", " ")


@DIFFUSERS
def test_words_that_choose_times_leave_them_to_the_scheduler():
    """DDIM with even times from 0 to T-1 steps by T // S all the same: to levels that it does not visit."""
    right, wrong = (
        "diffusers:DDIM?clip_sample=false",
        "diffusers:DDIM?clip_sample=false&timestep_spacing=linspace",
    )
    assert kept(right, "tells the network the grid's times")
    assert not kept(wrong, "tells the network the grid's times")
    ours = drawn("ddim")
    assert (ours - drawn(right)).abs().max() < 1e-9
    assert (ours - drawn(wrong)).abs().max() > 0.01  # on linspace, whose times it walks


@DIFFUSERS
def test_noise_at_a_last_step_with_t_above_zero_is_found():
    """Of the small variance nothing is left there, whatever noise is asked for; the large one is added."""
    none = "adds no noise at the last step"
    assert kept("diffusers:DDPM?clip_sample=false", none)
    assert kept("diffusers:DDPM?clip_sample=false&steps_offset=1", none)
    assert kept("diffusers:DDPM?clip_sample=false&variance_type=fixed_large", none)
    assert not kept("diffusers:DDPM?clip_sample=false&variance_type=fixed_large&steps_offset=1", none)


@DIFFUSERS
def test_a_scheduler_that_cannot_reach_x0_is_brought_there_by_the_network():
    grid = make_grid(LINEAR, 10, "linspace")
    model = MixtureOracle(LINEAR)
    assert count_calls(model, get_sampler("diffusers:DEISMultistep"), grid) == 10
    assert torch.isfinite(drawn("diffusers:DEISMultistep")).all()


@DIFFUSERS
def test_a_learned_variance_is_given_on_where_it_is_asked_for():
    model = GaussianOracle(LINEAR)
    if model.variance == "fixed":
        with pytest.raises(NotApplicable, match="predicts no variance"):
            drawn("diffusers:DDPM?variance_type=learned_range", model=model)
    else:
        assert torch.isfinite(drawn("diffusers:DDPM?variance_type=learned_range", model=model)).all()


@DIFFUSERS
@K_DIFFUSION
def test_an_infinite_sigma_is_refused():
    from bench import zero_terminal_snr

    schedule = zero_terminal_snr(LINEAR)
    model = GaussianOracle(schedule)
    grid = make_grid(schedule, 5, "linspace")
    noise = TrajectoryNoise(0, range(2), model.shape)
    for spec in ("k-diffusion:euler", "diffusers:DDIM"):
        with pytest.raises(NotApplicable, match="alpha_bar > 0"):
            sample(model, get_sampler(spec), grid, noise.initial(), noise)


def test_arguments_are_read_as_python_reads_them():
    name, given = split_call("Name?a=1&b=0.5&c=true&d=none&e=sde-dpmsolver++&f=(1, 2)")
    assert name == "Name"
    assert given == {"a": 1, "b": 0.5, "c": True, "d": None, "e": "sde-dpmsolver++", "f": (1, 2)}
    assert split_call("Name") == ("Name", {})
    with pytest.raises(UsageError, match="expected key=value"):
        split_call("Name?a")


def test_a_sigma_of_the_grid_is_its_time_and_one_beyond_the_schedule_its_last():
    grid = make_grid(LINEAR, 5, "linspace")
    model = GaussianOracle(LINEAR)
    levels = [Level.start(step) for step in grid]
    for step in grid:
        sigma = math.sqrt(1 / step.alpha_bar - 1)
        assert level_of_sigma(model, levels, float(torch.tensor(sigma, dtype=torch.float32))).t == step.t
    beyond = level_of_sigma(model, levels, 1e4)
    assert beyond.t == 999 and beyond.alpha_bar == pytest.approx(1e-8)
    assert level_of_sigma(model, levels, 1e-6).t == 0


@DIFFUSERS
def test_a_verdict_is_told_once_where_both_numbers_of_steps_agree():
    assert verdict_of("ddim", "diffusers:DDIM?clip_sample=false") == "same"
    assert verdict_of("ddim", "ddim:eta=1").startswith("differ")
