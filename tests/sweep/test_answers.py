"""What a model answers is checked: a wrong wiring is one sentence that names the model and the way out."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench import NoiseSchedule, Prediction, classifier_guided, get_sampler, guided, make_grid, sample
from bench.commands.main import main
from bench.device.clock import Clock
from bench.diffusion.answers import ModelError, check_contract, checked
from bench.diffusion.guidance import GuidedByGradient
from bench.sweep.meter import metered

X = torch.zeros(2, 1, 4, 4)
SCHEDULE = NoiseSchedule.linear()


class Model:
    """Returns what it was given."""

    schedule, shape, variance = SCHEDULE, (1, 4, 4), "fixed"

    def __init__(self, answer, variance="fixed"):
        self.answer, self.variance = answer, variance

    def __call__(self, x, t):
        return self.answer


TWICE = torch.zeros(2, 2, 4, 4)


@pytest.mark.parametrize(
    ("answer", "variance", "says"),
    [
        (X, "fixed", "returned a tensor of shape (2, 1, 4, 4), and it must return bench.Prediction"),
        (TWICE, "fixed", "variance='learned_range')"),
        (X[:1], "fixed", "each shaped like x, (2, 1, 4, 4)"),
        ((X, None), "fixed", "returned a tuple of 2"),
        ({"sample": X}, "fixed", "returned a dict with sample"),
        (SimpleNamespace(sample=X), "fixed", "take its .sample, as in bench.Prediction(output.sample)"),
        (None, "fixed", "returned None"),
        (np.zeros(3), "fixed", "returned a ndarray"),
        (Prediction(TWICE), "fixed", "split its channels: the second half is raw_variance"),
        (Prediction(X[:, :, :2]), "fixed", "returned eps of shape (2, 1, 2, 4) for x of shape (2, 1, 4, 4)"),
        (Prediction(X, X[:1]), "learned", "returned raw_variance of shape (1, 1, 4, 4)"),
        (Prediction(X.long()), "fixed", "returned eps of torch.int64, not a floating-point tensor"),
        (Prediction(None), "fixed", "a Prediction whose eps is None"),
        (Prediction(X), "learned", "says that its variance is 'learned' and returned none"),
    ],
)
def test_a_wrong_answer_is_told_with_what_to_do(answer, variance, says):
    with pytest.raises(ModelError) as told:
        checked(Model(answer, variance), answer, X)
    assert str(told.value).startswith("model Model ")
    assert says in str(told.value)


def test_a_right_answer_comes_in_the_dtype_of_x():
    found = checked(Model(None), Prediction(X.double(), X.double(), X.double()), X)
    assert [part.dtype for part in found] == [torch.float32] * 3
    answer = Prediction(X)
    assert checked(Model(None), answer, X) is answer


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            torch.nn.Linear(1, 1),
            "without schedule, shape, variance; wrap a network with",
        ),
        (SimpleNamespace(schedule=1, shape=(1, 2, 2), variance="fixed"), "without a call"),
    ],
)
def test_what_is_no_model_is_told_before_it_is_called(model, says):
    with pytest.raises(ModelError, match=says):
        check_contract(model, "'mine.py:make'")
    bad = Model(X)
    bad.shape = (4, 4)
    with pytest.raises(ModelError, match=r"has the shape \(4, 4\); it must be \(channels, height, width\)"):
        check_contract(bad, "x")


BROKEN = """
import torch
from bench import NoiseSchedule, Prediction

class Model:
    schedule, shape, variance = NoiseSchedule.linear(), (1, 4, 4), "fixed"
    def __call__(self, x, t):
        return x

def tensor():
    return Model()

def raises():
    return {}["no such key"]

def network():
    return torch.nn.Conv2d(1, 1, 1)
"""


@pytest.mark.parametrize(
    ("factory", "status", "says"),
    [
        (
            "tensor",
            1,
            "failed: ddim eta=0 at S=5 (model {0}:tensor), model at setup: model Model",
        ),
        ("raises", 1, "error: model '{0}:raises' could not be made: KeyError: 'no such key'"),
        ("network", 1, "error: model '{0}:network' is a Conv2d without schedule, shape, variance"),
    ],
)
def test_a_model_that_is_wired_wrong_is_blamed_itself(factory, status, says, tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(BROKEN)
    images = tmp_path / "images.npz"
    np.savez(images, images=np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), dtype=np.uint8))
    command = ["run", "--model", f"{path}:{factory}", "--samplers", "ddim", "--steps", "5", "--n", "20"]
    command += ["--metrics", "fd_pixels", "--reference", str(images), "--results", str(tmp_path / "r")]
    assert main(command) == status
    assert says.format(path) in capsys.readouterr().err


class Net:
    """A conditional network of one class."""

    schedule, shape, variance, prediction, classes = SCHEDULE, (1, 4, 4), "fixed", "eps", 1

    def __call__(self, x, t, label):
        return Prediction(0.5 * x)


def test_calls_and_evaluations_are_counted_apart():
    counts = []
    for scale, interval in ((1.0, None), (0.0, None), (3.0, None), (3.0, (150, 600))):
        meter = metered(guided(Net(), [0, 0], scale, interval=interval), Clock(torch.device("cpu")))
        sample(meter, get_sampler("ddim"), make_grid(SCHEDULE, 10), X, None)
        counts.append((meter.calls, meter.rows, meter.evaluations, meter.gradients))
    assert counts == [(10, 20, 20, 0), (10, 20, 20, 0), (10, 20, 40, 0), (10, 20, 2 * (10 + 5), 0)]


def test_a_classifier_s_gradients_are_counted_in_both_forms():
    model = classifier_guided(guided(Net(), [0, 0]), lambda x, t: -x, 2.0)
    for spec in ("ddim", "ddpm:guide=mean,clip=none"):
        meter = metered(model, Clock(torch.device("cpu")))
        assert isinstance(meter, GuidedByGradient)
        sample(meter, get_sampler(spec), make_grid(SCHEDULE, 5), X, lambda index: torch.zeros_like(X))
        assert (meter.calls, meter.evaluations, meter.gradients) == (5, 10, 10)
    assert not isinstance(metered(Model(Prediction(X)), Clock(torch.device("cpu"))), GuidedByGradient)


def test_a_model_of_few_time_steps_caps_the_default_steps_and_says_so(tmp_path, capsys):
    path = tmp_path / "short.py"
    path.write_text(
        "from bench import NoiseSchedule\n"
        "from models.exact import ExactGaussian\n"
        "import torch\n"
        "def make():\n"
        "    mean, covariance = torch.zeros(1, 4, 4), 0.04 * torch.eye(16)\n"
        "    return ExactGaussian(mean, covariance, schedule=NoiseSchedule.linear(30))\n"
    )
    command = ["run", "--model", f"{path}:make", "--samplers", "ddim", "--n", "20", "--dry-run"]
    assert main([*command, "--metrics", "fd_pixels", "--results", str(tmp_path / "r")]) == 0
    assert "the model has 30 time steps: S = 10, 20, 30" in capsys.readouterr().err
    assert main([*command, "--steps", "50", "--results", str(tmp_path / "r")]) == 2
    assert "the number of steps must be from 1 to T=30" in capsys.readouterr().err


def test_a_list_of_times_is_a_column_of_its_own(tmp_path, capsys):
    times = tmp_path / "times.txt"
    times.write_text("999\n500.5\n0\n")
    common = [
        "run",
        "--model",
        "exact-gaussian",
        "--samplers",
        "ddim",
        "--n",
        "20",
        "--results",
        str(tmp_path),
    ]
    assert main([*common, "--spacing", str(times), "--dry-run"]) == 0
    told = capsys.readouterr()
    assert "ddim:eta=0,clip=none@3" in told.out
    times.write_text("a few")
    assert main([*common, "--spacing", str(times)]) == 2
    assert "must list times, one a line or with commas between" in capsys.readouterr().err
