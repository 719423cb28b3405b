"""What is asked of a model before its trials, and who is blamed for what comes to light in them."""

import numpy as np
import pytest
import torch
from support.commands import bench as run_bench

import bench
from bench.commands.main import main
from bench.diffusion.answers import ModelError, check_function
from bench.diffusion.grid import grid_for

FILE = """
from pathlib import Path

import torch
from torch import nn

import bench

SCHEDULE = bench.NoiseSchedule.linear()
LEARNED = bench.from_prediction(
    lambda x, t: torch.cat([0.5 * x, torch.rand_like(x)], 1), SCHEDULE, (1, 8, 8), "eps", "learned"
)


class Plain:
    schedule, shape, variance = SCHEDULE, (1, 8, 8), "fixed"

    def __call__(self, x, t):
        return bench.Prediction(0.5 * x)


class Table(Plain):
    def __call__(self, x, t):
        return bench.Prediction(SCHEDULE.alphas_cumprod[t].float().view(-1, 1, 1, 1) * x)


class FirstOfBatch(Plain):
    def __call__(self, x, t):
        return bench.Prediction(0.5 * x[:1].expand_as(x))


class Counts(Plain):
    def __call__(self, x, t):
        with Path(__file__).with_name("calls.txt").open("a") as told:
            print(len(x), file=told)
        return bench.Prediction(0.5 * x)


class RandomAtTheStart(Plain):
    def __call__(self, x, t):
        return bench.Prediction(0.5 * x + (t > 700).view(-1, 1, 1, 1) * torch.randn_like(x))


class LastOfBatch(Plain):
    def __call__(self, x, t):
        return bench.Prediction(0.5 * x[-1:].expand_as(x))


class Reversed(Plain):
    def __call__(self, x, t):
        return bench.Prediction(0.5 * x.flip(0))


class SeededAtEachCall(Plain):
    def __call__(self, x, t):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        return bench.Prediction(0.5 * x + noise)


class RandomNearX0(Plain):
    def __call__(self, x, t):
        return bench.Prediction(0.5 * x + (t < 100).view(-1, 1, 1, 1) * torch.randn_like(x))


class BatchNearX0(Plain):
    def __call__(self, x, t):
        return bench.Prediction(0.5 * x - (t < 100).view(-1, 1, 1, 1) * x.mean(0, keepdim=True))


class RandomX0(Plain):
    def __call__(self, x, t):
        return bench.Prediction(0.5 * x, x0=torch.rand_like(x))


class KeptByTime(Plain):
    def __init__(self):
        self.kept = {}

    def __call__(self, x, t):
        key = int(t[0]), len(x)
        if key not in self.kept:
            self.kept[key] = 0.5 * x
        return bench.Prediction(self.kept[key])


class OneOfSharedMemory(Plain):
    def __call__(self, x, t):
        x += 1
        return bench.Prediction(x)


def random_variance():
    return LEARNED


class FewAreTooFew(Plain):
    def __call__(self, x, t):
        if len(x) < 5:
            raise ValueError("fewer than five\\nsamples")
        return bench.Prediction(0.5 * x)


class Nan(Plain):
    def __call__(self, x, t):
        return bench.Prediction(x * float("nan"))


class NanBetween(Plain):
    def __call__(self, x, t):
        between = (t > 250) & (t < 350)
        return bench.Prediction(torch.where(between.view(-1, 1, 1, 1), torch.nan, 0.5 * x))


class RaisesBetween(Plain):
    def __call__(self, x, t):
        if 250 < int(t[0]) < 350:
            raise ValueError("no such\\ntime")
        return bench.Prediction(0.5 * x)


def scripted():
    torch.manual_seed(0)
    network = torch.jit.script(nn.Sequential(nn.Dropout(0.5), nn.Conv2d(1, 1, 1)))
    return bench.from_prediction(lambda x, t: network(x), SCHEDULE, (1, 8, 8), "eps")


def double():
    network = nn.Conv2d(1, 1, 1).double()
    return bench.from_prediction(lambda x, t: network(x), SCHEDULE, (1, 8, 8), "eps")


def half():
    network = nn.Conv2d(1, 1, 1).bfloat16()
    return bench.from_prediction(lambda x, t: network(x), SCHEDULE, (1, 8, 8), "eps")


class Labelled:
    schedule, shape, variance = SCHEDULE, (1, 8, 8), "fixed"
    prediction, classes, null_label, has_none = "eps", 10, None, False

    def __call__(self, x, t, label):
        return bench.Prediction(0.5 * x + label.view(-1, 1, 1, 1))


def labelled():
    return bench.ConditionalModel(Labelled(), label="uniform")
"""

PLUGIN = """
from bench import hookimpl, sampler

@sampler
def blows_up(model, x, grid, noise):
    \"\"\"Grow x until a network cannot answer for it.

    References:
        none, 2026.
    \"\"\"
    for step in grid:
        model(x, step.times(x))
        x = x * 1e20
        yield x

@sampler
def wrong_times(model, x, grid, noise):
    \"\"\"Ask about times that are none.

    References:
        none, 2026.
    \"\"\"
    for step in grid:
        yield model(x, step.times(x) + 5000).eps

@hookimpl
def bench_samplers():
    return [blows_up, wrong_times]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("blame")
    (made / "mine.py").write_text(FILE)
    (made / "plugin.py").write_text(PLUGIN)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    np.savez(made / "images.npz", images=images)
    return made


def command(folder, name, batch, *more):
    given = ["run", "--model", f"{folder}/mine.py:{name}", "--reference", str(folder / "images.npz")]
    given += ["--samplers", "ddim", "--steps", "10", "--n", "8", "--metrics", "fd_pixels"]
    return [*given, "--batch", str(batch), "--results", str(folder / f"{name}-{batch}"), *more]


def failure(folder, name, batch=8):
    main(command(folder, name, batch, "--no-isolate"))  # what a process of its own adds others hold
    rows = bench.load_results(folder / f"{name}-{batch}")
    return rows[rows.kind == "samples"].iloc[0]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("FirstOfBatch", "answers differently for a batch in another order"),
        ("LastOfBatch", "answers differently for a batch in another order"),
        ("Reversed", "answers differently for"),
        ("SeededAtEachCall", "answers differently for a batch in another order"),
        ("RandomNearX0", "answers differently when it is asked twice"),
        ("BatchNearX0", "answers differently for half of a batch"),
        ("RandomX0", "answers differently when it is asked twice"),
        ("random_variance", "answers differently when it is asked twice"),
        ("KeptByTime", "answers differently for a batch in another order"),
        ("FewAreTooFew", "cannot answer for x of torch.float32 and shape (4, 1, 8, 8) at t=9"),
        ("Nan", "returned eps that is not finite for a block of noise"),
        ("NanBetween", "returned eps that is not finite at t="),
        ("RaisesBetween", "ValueError: no such time"),
    ],
)
def test_a_model_is_blamed_in_one_sentence(folder, name, sentence, capsys):
    found = failure(folder, name)
    assert found.status == "failed" and found.message.startswith("model ")
    assert sentence in found.message and "\n" not in found.message
    assert "model at " in capsys.readouterr().err


@pytest.mark.parametrize("batch", [2, 3, 4])
@pytest.mark.parametrize("name", ["FirstOfBatch", "LastOfBatch", "Reversed", "SeededAtEachCall"])
def test_any_size_of_block_brings_it_to_light(folder, name, batch):
    assert "answers differently for" in failure(folder, name, batch).message


@pytest.mark.parametrize("name", ["scripted", "labelled", "Plain"])
def test_what_is_a_function_passes_in_any_batch(folder, name):
    scores = [failure(folder, name, batch).score for batch in (8, 3, 1)]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-4)


@pytest.mark.parametrize(("name", "says"), [("blows_up", "not finite"), ("wrong_times", "IndexError")])
def test_a_sampler_keeps_its_own_faults(folder, name, says):
    given = command(folder, "Table", 8, "--plugin", folder / "plugin.py")
    given[given.index("ddim")] = name.replace("_", "-")
    done = run_bench(*given)  # a process of its own: plugins stay in the registry
    assert done.returncode == 1
    assert says in done.stderr
    assert "model at" not in done.stderr


@pytest.mark.parametrize("name", ["double", "half"])
def test_a_dry_run_tells_what_a_network_cannot_answer(folder, name, capsys):
    assert main(command(folder, name, 4, "--dry-run")) == 1
    told = capsys.readouterr().err
    assert "cannot answer for x of torch.float32 and shape (4, 1, 8, 8) at t=" in told
    assert "Traceback" not in told


def test_the_check_is_a_handful_of_calls_for_all_trials():
    rows = []

    class Counted:
        schedule, shape, variance = bench.NoiseSchedule.linear(), (1, 2, 2), "fixed"

        def __call__(self, x, t):
            rows.append(len(x))
            return bench.Prediction(0.5 * x)

    model = Counted()
    grid = grid_for(model, 10, "uniform")
    steps, x = [grid[0], grid[5], grid[9]], torch.randn(8, 1, 2, 2)
    check_function("counted", lambda x, places, step: model(x, step.times(x)), x, steps, 1e-3)
    assert rows == [8, 8, 4, 8, 4, 8, 4]


def test_a_later_trial_is_checked_where_no_earlier_one_was(folder):
    given = command(folder, "RandomAtTheStart", 8)
    given[given.index("10")] = "2,10"
    assert main(given) == 1
    rows = bench.load_results(folder / "RandomAtTheStart-8").query("kind == 'samples'").set_index("steps")
    assert rows.status[2] == "done" and "asked twice" in rows.message[10]


def test_trials_of_one_range_of_times_are_checked_once(folder):
    given = command(folder, "Counts", 8)
    given[given.index("ddim")] = "ddim:eta=1"
    given[given.index("ddim:eta=1") : given.index("ddim:eta=1")] = ["ddim", "ddim:eta=0.5"]
    assert main(given) == 0
    asked = (folder / "calls.txt").read_text().split()
    assert (asked.count("4"), asked.count("8")) == (3, 4 + 3 * 10)


def test_rounding_that_grows_with_the_level_is_no_fault():
    """A network in bfloat16 that tells x_0: eps near x_0 is its rounding error times a / b."""
    model = bench.from_prediction(
        lambda x, t: 0.5 * x + 1e-3 * torch.randn_like(x), bench.NoiseSchedule.linear(), (1, 2, 2), "x0"
    )
    grid = grid_for(model, 10, "uniform")
    x = torch.randn(8, 1, 2, 2)

    def ask(x, places, step):
        return model(x, step.times(x))

    check_function("rounded", ask, x, [grid[9]], 0.1)
    with pytest.raises(ModelError, match="asked twice"):
        check_function("rounded", ask, x, [grid[9]], 1e-4)
