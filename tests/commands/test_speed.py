"""What ``speed`` measures: turns that alternate, ratios within a turn, a batch that fails beside others."""

import json

import pytest
import torch
from support import performance

from bench import NoiseSchedule, Prediction, sampler
from bench.commands.main import main
from bench.diffusion.calls import count_calls
from bench.diffusion.grid import grid_for
from bench.diffusion.sampling import get_sampler
from bench.errors import BenchError
from bench.sweep import speed
from bench.sweep.speed import Overhead, Pace, Setting, in_turns, measure_overheads, measure_paces

MODEL = """
import bench


class Small:
    schedule, shape, variance = bench.NoiseSchedule.linear(T=20), (1, 4, 4), "fixed"

    def __call__(self, x, t):
        if len(x) == 7:
            raise MemoryError("seven are too many")
        return bench.Prediction(0.5 * x)


def make():
    return Small()
"""


class Hum:
    """A network that takes a unit of a clock for each call, and counts its calls."""

    schedule, shape, variance = NoiseSchedule.linear(T=20), (1, 4, 4), "fixed"

    def __init__(self, clock):
        self.clock, self.asked = clock, []

    def __call__(self, x, t):
        self.clock.now += 1.0
        self.asked.append((len(x), int(t[0])))
        return Prediction(0.5 * x)


class Ticks:
    """A clock that moves when it is told: what is measured is exact."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Ticks()
    monkeypatch.setattr("bench.device.clock.time", made)
    return made


def setting(clock, **changes):
    model = Hum(clock)
    return Setting(model, grid_for(model, 4, "uniform"), torch.device("cpu"), turns=3, **changes)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "small.py"
    path.write_text(MODEL)
    return f"{path}:make"


def test_turns_alternate_and_the_first_is_not_counted():
    told = []

    def work(name, seconds):
        values = iter(seconds)

        def once():
            told.append(name)
            return next(values)

        return once

    found = in_turns([work("A", [9, 1, 2]), work("B", [8, 3, 4])], 2)
    assert "".join(told) == "ABABAB"
    assert found == [(1, 2), (3, 4)]


def test_a_pace_in_its_units():
    pace = Pace(4, (0.2, 0.1, 0.4))
    assert (pace.latency, pace.milliseconds, pace.throughput) == pytest.approx((200, 50, 20))
    assert pace.spread == pytest.approx(1.5)


def test_a_sampler_that_takes_as_long_again_as_its_network_has_overhead_two(clock):
    @sampler
    def idle(model, x, grid, noise):
        for step in grid:
            model(x, step.times(x))
            clock.now += 1.0
            yield x

    given = setting(clock)
    (found,) = measure_overheads(given, [idle], 2)
    assert found.calls == 4
    assert found.ratios == (2.0, 2.0, 2.0)
    assert found.seconds == (8.0, 8.0, 8.0)
    assert {rows for rows, _ in given.model.asked} == {2}


def test_bare_calls_are_those_of_the_trajectory(clock):
    given = setting(clock)
    (found,) = measure_overheads(given, [get_sampler("heun")], 1)
    assert found.calls == count_calls(given.model, get_sampler("heun"), given.grid)
    assert found.ratio == 1.0
    bare = given.model.asked[-found.calls :]
    assert {t for _, t in bare} == {int(step.t) for step in given.grid}


def test_what_fits_not_and_what_fails_have_their_own_words(clock):
    @sampler
    def broken(model, x, grid, noise):
        raise RuntimeError("no steps today")
        yield x

    learned, failed = measure_overheads(setting(clock), [get_sampler("ddpm:variance=learned"), broken], 1)
    assert (learned.failure.status, learned.ratios) == ("skipped", ())
    assert (failed.failure.status, failed.failure.message) == ("failed", "RuntimeError: no steps today")
    assert isinstance(learned, Overhead)


def test_short_calls_are_repeated_and_long_ones_are_not(clock, monkeypatch):
    given = setting(clock)
    monkeypatch.setattr(speed, "LEAST_SECONDS", 3.0)
    (pace,) = measure_paces(given, [2])
    assert pace.seconds == (1.0, 1.0, 1.0)
    assert len(given.model.asked) == 2 + 3 * 4
    monkeypatch.setattr(speed, "LEAST_SECONDS", 0.5)
    given.model.asked.clear()
    measure_paces(given, [2])
    assert len(given.model.asked) == 2 + 4


def test_a_network_that_answers_at_no_batch_is_an_error(clock):
    given = setting(clock)
    clock.now = None  # every call raises
    with pytest.raises(BenchError, match="cannot answer"):
        measure_paces(given, [1, 2])


def test_json_holds_what_the_tables_do(file, capsys):
    asked = ("speed", "--model", file, "--samplers", "ddim", "ddpm:variance=learned", "heun")
    assert main([*asked, "--batch", "2,1", "--turns", "2", "--steps", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["batch"] for one in told["network"]] == [1, 2, 250]
    assert told["best_batch"] in (1, 2, 250)
    first, skipped, heun = told["overhead"]["samplers"]
    assert first["calls"] == 4 and len(first["ratios"]) == 2 and first["overhead"] > 0
    assert skipped["status"] == "skipped"
    assert heun["calls"] > first["calls"]
    trials = told["sweep"]["trials"]
    assert {one["trial"].partition("@")[2] for one in trials} == {"10", "20"}  # the model has 20 time steps
    at_ten = next(one for one in trials if one["trial"].startswith("ddim") and one["trial"].endswith("@10"))
    call = sorted(told["network"][2]["seconds"])
    assert at_ten["evaluations"] == 10 * 1000
    middle = sum(call) / 2
    assert at_ten["seconds"] == pytest.approx(10 * 4 * middle * first["overhead"])


def test_a_batch_that_fails_leaves_the_others(file, capsys):
    asked = ("speed", "--model", file, "--samplers", "ddim", "--turns", "1", "--steps", "2")
    assert main([*asked, "--batch", "1,7"]) == 1
    told = capsys.readouterr()
    assert "failed: batch 7: MemoryError: seven are too many" in told.err
    assert "best batch" in told.out
    assert "the default sweep of these samplers, n = 1,000 at S = 10, 20" in told.out


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--batch", "0"], "--batch takes numbers of images from 1 on, got 0"),
        (["--batch", "many"], "--batch takes whole numbers"),
        (["--turns", "0"], "--turns must be at least 1, got 0"),
        (["--steps", "0"], "steps"),
        (["--samplers", "dimm"], "unknown sampler 'dimm'"),
        (["--device", "cpu,cpu"], "speed is of one device"),
    ],
)
def test_bad_options_are_one_sentence(file, capsys, given, says):
    assert main(["speed", "--model", file, "--turns", "1", *given]) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert told.out == ""


def test_the_document_is_made_of_what_is_measured(file):
    asked = ("--model", file, "--samplers", "ddim", "ddpm:variance=learned", "--batch", "3", "--turns", "1")
    made = performance.tables(asked)
    assert performance.command(asked) in made
    network, samplers = (part.splitlines()[2:] for part in made.split("\n\n") if part.startswith("|"))
    assert [row.split(" | ")[0] for row in network] == ["| 3", "| 250"]
    assert [row.split(" | ")[0] for row in samplers] == ["| ddim eta=0"]  # the other does not fit the model
    assert "The default sweep: 2 trials, 30,000 network evaluations" in made
