"""Deliberately miswired copies of the shipped network: each is told, and the network itself is not."""

import json

import numpy as np
import pytest
import torch

from bench import NoiseSchedule, Prediction, load_images, load_model
from bench.commands.main import main
from bench.sweep.wiring import examine

LINEAR = NoiseSchedule.linear()
A = LINEAR.alphas_cumprod


@pytest.fixture(scope="module")
def digits():
    return load_model("digits").model


@pytest.fixture(scope="module")
def images():
    return load_images("digits-held-out").images[:64]


def root(table, t, x):
    return table[t].sqrt().to(x).view(-1, 1, 1, 1)


def converted(eps, x, t, kind):
    a, b = root(A, t, x), root(1 - A, t, x)
    x0 = (x - b * eps) / a
    return x0 if kind == "x0" else a * eps - b * x0


def trained_on(digits, scale, offset):
    """The network of images scale x + offset: what it is given is undone before the network sees it."""

    def answer(x, t):
        a = root(A, t, x)
        inside = (x - a * offset) / scale  # a x_0 + (b / scale) z
        seen = A / (A + (1 - A) / scale**2)
        nearest = (seen[t].view(-1, 1) - A.view(1, -1)).abs().argmin(1)
        norm = root(seen, t, x) / a
        return digits(inside * norm, nearest).eps

    return answer


MISWIRED = {
    "the sign turned": lambda digits: lambda x, t: -digits(x, t).eps,
    "times counted from 1": lambda digits: lambda x, t: digits(x, (t - 1).clamp(min=0)).eps,
    "times reversed": lambda digits: lambda x, t: digits(x, 999 - t).eps,
    "x_0 predicted": lambda digits: lambda x, t: converted(digits(x, t).eps, x, t, "x0"),
    "v predicted": lambda digits: lambda x, t: converted(digits(x, t).eps, x, t, "v"),
    "images in [0, 1]": lambda digits: trained_on(digits, 0.5, 0.5),
    "images in [-1/2, 1/2]": lambda digits: trained_on(digits, 0.5, 0.0),
}


class Model:
    """An answer as a model."""

    shape, variance = (1, 12, 12), "fixed"

    def __init__(self, answer, schedule=LINEAR):
        self.answer, self.schedule = answer, schedule

    def __call__(self, x, t):
        return Prediction(self.answer(x, t))


@pytest.mark.parametrize("name", MISWIRED)
def test_a_miswiring_is_told(name, digits, images):
    found = examine(Model(MISWIRED[name](digits)), images)
    assert len(found.verdicts) == 1
    assert name in found.verdicts[0]


def test_a_schedule_that_is_not_its_own_is_told(digits, images):
    found = examine(Model(lambda x, t: digits(x, t).eps, NoiseSchedule.cosine()), images)
    assert "with the linear schedule its error is" in found.verdicts[0]


def test_a_network_in_training_mode_and_one_that_says_nothing_are_told(images):
    def mixed(x, t):
        return x - x.mean(0, keepdim=True)

    assert "put the network into evaluation mode" in examine(Model(mixed), images).verdicts[-1]
    silent = examine(Model(lambda x, t: torch.zeros_like(x)), images)
    assert "there is no noise at any level" in silent.verdicts[0]


@pytest.mark.parametrize("name", ["digits", "digits-conditional", "digits-latent", "exact-digits"])
def test_the_shipped_models_are_wired_right(name, capsys):
    assert main(["check-model", name]) == 0
    out = capsys.readouterr().out
    assert "nothing is wrong that real images show" in out
    assert "times counted from 1" in out
    assert main(["check-model", name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verdicts"] == []
    latent = name == "digits-latent"  # of unit variance in every direction: harder to tell from noise
    assert told["readings"]["as it is"] < (0.5 if latent else 0.4)
    assert (told["outside"] is None) == latent
    assert ("the latents:" in out, "outside [-1, 1]" in out) == (latent, not latent)
    assert told["facts"]["averaged weights"] == "nobody says"
    assert told["facts"]["conditional"] == ("yes" if "conditional" in name else "no")


def test_natural_images_are_no_reason_to_think_of_another_range():
    """Smooth images of small contrast are easy, and easier still at half the contrast."""
    rng = np.random.default_rng(0)
    smooth = torch.from_numpy(rng.normal(size=(64, 1, 3, 3))).repeat_interleave(4, 2).repeat_interleave(4, 3)
    images = (127.5 + 60 * smooth).clamp(0, 255).to(torch.uint8)
    x0 = images.double().flatten(1) / 127.5 - 1
    mean, covariance = x0.mean(0), torch.cov(x0.T) + 5e-6 * torch.eye(144)
    values, basis = torch.linalg.eigh(covariance)

    def exact(x, t):
        a = A[t].view(-1, 1).to(x)
        centred = (x.flatten(1) - a.sqrt() * mean.to(x)) @ basis.to(x)
        return ((1 - a).sqrt() * centred / (a * values.to(x) + 1 - a) @ basis.T.to(x)).view_as(x)

    assert examine(Model(exact), images).verdicts == ()


def test_what_a_model_was_trained_on_must_be_known(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "from bench import NoiseSchedule, Prediction\n"
        "class M:\n"
        "    schedule, shape, variance = NoiseSchedule.linear(), (1, 4, 4), 'fixed'\n"
        "    def __call__(self, x, t):\n"
        "        return Prediction(x)\n"
    )
    assert main(["check-model", f"{path}:M"]) == 2
    assert "does not say what it was trained on; give --reference" in capsys.readouterr().err
    assert main(["check-model", f"{path}:M", "--reference", "digits"]) == 2
    assert "images are (1, 12, 12) and the model's (1, 4, 4)" in capsys.readouterr().err
