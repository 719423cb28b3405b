"""A model must be a function of its input: what is none costs its trials a sentence, and no wrong score."""

import numpy as np
import pytest
import torch
from support.commands import bench as run_bench

import bench
from bench.diffusion.sampling import get_sampler

FILE = """
import sys

import torch
from torch import nn

import bench

SCHEDULE = bench.NoiseSchedule.linear()
torch.manual_seed(0)


class Plain:
    schedule, shape, variance = SCHEDULE, (1, 8, 8), "fixed"

    def __init__(self):
        self.layers = {"inside": [nn.Sequential(nn.Dropout(0.5), nn.Conv2d(1, 1, 1))]}

    def __call__(self, x, t):
        return bench.Prediction(self.layers["inside"][0](x))


class Random(Plain):
    def __call__(self, x, t):
        return bench.Prediction(x + torch.randn_like(x))


class Batch(Plain):
    def __call__(self, x, t):
        return bench.Prediction(x - x.mean(0, keepdim=True))


class InPlace(Plain):
    def __call__(self, x, t):
        return bench.Prediction(x.mul_(0.5))


class Bfloat16(Plain):
    def __init__(self):
        self.net = nn.Conv2d(1, 1, 1).bfloat16()

    def __call__(self, x, t):
        return bench.Prediction(self.net(x))


class Cast(Bfloat16):
    def __call__(self, x, t):
        return bench.Prediction(self.net(x.bfloat16()))


class Float64(Plain):
    def __init__(self):
        self.net = nn.Conv2d(1, 1, 1).double()

    def __call__(self, x, t):
        return bench.Prediction(self.net(x.double()))


class OneMemory(Plain):
    def __call__(self, x, t):
        self.out = x * 0.5
        return bench.Prediction(self.out)


class Exits(Plain):
    def __call__(self, x, t):
        sys.exit(0)


def exits_at_once():
    sys.exit(0)


def guided_by_gradient():
    net = nn.Conv2d(1, 1, 3, padding=1)

    def gradient(x, t):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(-net(x).square().sum(), x)[0]

    base = bench.from_prediction(lambda x, t: 0.5 * x, SCHEDULE, (1, 8, 8), "eps")
    return bench.classifier_guided(base, gradient, scale=0.1)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("functions")
    (made / "mine.py").write_text(FILE)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    np.savez(made / "images.npz", images=images)
    return made


def swept(folder, name, batch, *more):
    results = folder / f"{name}-{batch}"
    done = run_bench(
        *("run", "--model", f"{folder}/mine.py:{name}", "--reference", folder / "images.npz"),
        *("--samplers", "ddim", "--steps", "2", "--n", "8", "--batch", str(batch), "--results", results),
        *more,
    )
    return done, bench.load_results(results) if results.exists() else None


@pytest.mark.parametrize("name", ["Plain", "Cast", "Float64", "OneMemory", "guided_by_gradient"])
def test_what_is_a_function_scores_alike_in_any_batch(folder, name):
    scores = []
    for batch in (8, 3):
        done, rows = swept(folder, name, batch, "--no-isolate")
        assert done.returncode == 0, done.stderr
        scores.append(rows[rows.kind == "samples"].score.iloc[0])
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Random", "answers differently when it is asked twice"),
        ("Batch", "answers differently for half of a batch"),
        ("InPlace", "changes the x it is given in place"),
        ("Bfloat16", "cannot answer for x of torch.float32 and shape (4, 1, 8, 8)"),
        ("Exits", "it called sys.exit(0)"),
    ],
)
def test_what_is_none_is_told_and_charged_to_the_model(folder, name, sentence):
    done, rows = swept(folder, name, 4)
    assert done.returncode == 1
    assert sentence in rows[rows.kind == "samples"].message.iloc[0]
    shown = run_bench("show", "ddim@2", "--results", folder / f"{name}-4").stdout
    assert f"mine.py:{name}" in shown


def test_a_factory_that_exits_is_told(folder):
    done, _ = swept(folder, "exits_at_once", 4)
    assert done.returncode == 1
    assert "could not be made: it called sys.exit(0)" in done.stderr


def test_no_graph_is_kept_unless_x_asks_for_it():
    weight = torch.nn.Parameter(torch.tensor(0.5))
    model = bench.from_prediction(lambda x, t: weight * x, bench.NoiseSchedule.linear(), (1, 2, 2), "eps")
    grid, x = bench.make_grid(model.schedule, 5), torch.ones(2, 1, 2, 2)
    assert not bench.sample(model, get_sampler("ddim"), grid, x, lambda index, draw=0: x).requires_grad
    steps = bench.trajectory(model, get_sampler("ddim"), grid, x, lambda index, draw=0: x)
    next(steps)
    assert torch.is_grad_enabled()  # between steps the mode is the caller's
    asked = x.clone().requires_grad_()
    end = bench.sample(model, get_sampler("ddim"), grid, asked, lambda index, draw=0: x)
    end.sum().backward()
    assert asked.grad is not None and weight.grad is not None
