"""Sweeps from Python: the same records as the command makes, and objects that are never mixed up."""

import inspect
import re
import sys
from math import sqrt
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from support.commands import bench as command

import bench
from bench.commands.main import command_parser, main
from bench.errors import UsageError
from bench.interactive import showing
from bench.interactive.arguments import NOT_IN_PYTHON, options_of
from bench.plugins.loading import registry
from bench.plugins.objects import card_of

MEASURED = ["sampling_seconds", "model_seconds", "sampler_seconds", "scoring_seconds", "images_per_second"]
OF_THE_RUN = [*MEASURED, "peak_bytes", "finished", "command"]


@bench.sampler(source="Song et al. 2021, arXiv:2010.02502, eq. 12, eta = 0")
def own_rule(model, x, grid, noise, *, damping: float = 1.0):
    for step in grid:
        eps = model(x, step.times(x)).eps
        x0 = (x - sqrt(1 - step.alpha_bar) * eps) / sqrt(step.alpha_bar)
        x = sqrt(step.alpha_bar_next) * x0 + damping * sqrt(1 - step.alpha_bar_next) * eps
        yield x


class Scaled:
    """The shipped network, its answers multiplied."""

    variance = "fixed"

    def __init__(self, scale=1.0):
        self.inside = bench.load_model("digits").model
        self.schedule, self.shape = self.inside.schedule, self.inside.shape
        self.scale = scale

    def __call__(self, x, t):
        return bench.Prediction(self.scale * self.inside(x, t).eps)


@pytest.fixture
def small(tmp_path):
    return {"steps": [2], "n": 20, "results": tmp_path / "results", "progress": False}


def test_python_and_the_command_make_the_same_records(small, tmp_path):
    asked = ["--samplers", "ddim:eta=0", "heun", "--steps", "2,3", "--n", "20", "--seed", "3"]
    assert command("run", *asked, "--results", tmp_path / "theirs").returncode == 0
    ours = bench.run(["ddim:eta=0", "heun"], **{**small, "steps": [2, 3]}, seed=3)
    theirs = bench.load_results(tmp_path / "theirs")
    mine = bench.load_results(small["results"])
    pd.testing.assert_frame_equal(mine.drop(columns=OF_THE_RUN), theirs.drop(columns=OF_THE_RUN))
    assert set(ours.frame().key) == set(mine.key)
    assert ours.frame().command[0].startswith("sampler-bench run --samplers ddim:eta=0 heun --steps 2,3")


def test_the_command_goes_on_from_what_python_made(small, capsys):
    bench.run("ddim:eta=0", **small)
    asked = ["run", "--samplers", "ddim:eta=0", "--steps", "2", "--n", "20", "--no-isolate"]
    assert main([*asked, "--results", str(small["results"])]) == 0
    assert "1 of 1 trials are there already" in capsys.readouterr().err


def test_every_option_of_the_command_can_be_given():
    known = set(command_parser("run").named()) - NOT_IN_PYTHON
    for name, value in {
        "until_tie": 0.02,
        "isolate": True,
        "strict": True,
        "plugin": ["a.py", "b.py"],
        "guidance": [1, 2.5],
        "samplers": ["ddim", "heun"],
        "metrics": ["fid", "kid"],
    }.items():
        assert name in known
        options, _ = options_of("run", {name: value})
        assert getattr(options, name) not in (None, [], False)
    assert options_of("run", {"isolate": False})[0].isolate is False
    assert options_of("run", {"strict": False})[0].strict is False
    named = [
        p.name
        for p in inspect.signature(bench.run).parameters.values()
        if p.name not in ("options", "progress")
    ]
    assert set(named) <= known


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"step": [3]}, "unknown argument of run 'step'; did you mean steps"),
        ({"dry_run": True}, "unknown argument of run 'dry_run'"),
        ({"n": 1}, "--n must be at least 2"),
        ({"samplers": []}, "argument --samplers: expected at least one argument"),
        ({"samplers": "-x"}, "argument --samplers: '-x' is no name"),
        ({"model": ""}, "argument --model: it is empty"),
        ({"model": bench.ModelCard("", lambda: Scaled(), "")}, "argument --model: it is empty"),
        ({"results": ""}, "argument --results: it is empty"),
        ({"reference": "-x"}, "unknown image data set '-x'"),
        ({"model": bench.ModelCard("own", lambda: 1 / 0, "")}, "model 'own' could not be made: ZeroDivision"),
        ({"n": "many"}, "argument --n/--samples: invalid int value: 'many'"),
        ({"samplers": "dim"}, "unknown sampler 'dim'; did you mean ddim"),
        ({"samplers": [len]}, "len is no sampler"),
        ({"model": object()}, "without schedule, shape, variance"),
        ({"model": "nothing.py:make"}, "does not exist"),
    ],
)
def test_bad_input_is_one_sentence(asked, told, small):
    with pytest.raises(bench.BenchError, match=re.escape(told)) as found:
        bench.run(**{**small, **asked})
    assert "\n" not in str(found.value)


def test_numbers_are_taken_as_arrays_and_tensors_and_names_as_they_are():
    for given in (2, np.array(2), torch.tensor(2), np.int64(2), [2], torch.tensor([2])):
        assert options_of("run", {"steps": given})[0].steps == "2"
    assert options_of("run", {"model": "-x"})[0].model == "-x"
    assert card_of(lambda x, t: x).name == "lambda"


def test_objects_are_drawn_like_what_they_are(small):
    """The rule is DDIM with eta = 0, and the network times 1 is the shipped one."""
    results = bench.run([own_rule, "ddim:eta=0,clip=none"], model=Scaled(), reference="digits", **small)
    own, known = results.frame().set_index("sampler").score[["own-rule", "ddim"]]
    assert own == pytest.approx(known, rel=1e-5)
    shipped = bench.run("ddim:eta=0,clip=none", **small).frame().score[0]
    assert known == pytest.approx(shipped, rel=1e-6)
    assert results.frame().command[0].startswith("bench.run(samplers=['own-rule:damping=1', ")
    origins = [*registry().samplers.origins.values(), *registry().models.origins.values()]
    assert not any("object" in origin.plugin for origin in origins)


def test_a_folder_made_in_python_is_verified_like_any_other(small, capsys):
    bench.run([own_rule, "ddim:eta=0"], model=Scaled(), reference="digits", **small)
    assert main(["verify", str(small["results"])]) == 0
    assert main(["verify", str(small["results"]), "--redo", "2"]) == 1
    told = capsys.readouterr().err
    assert "it is of an object in Python, and only there can it be drawn: bench.run(samplers=" in told


def redefined(factor):
    """The sampler of a cell that is run again."""
    space = {}
    source = f"""
from math import sqrt
import bench

@bench.sampler
def again(model, x, grid, noise):
    for step in grid:
        eps = model(x, step.times(x)).eps
        x = x / sqrt(step.alpha_bar) - {factor} * eps
        yield x
"""
    exec(source, space)
    return space["again"]


def test_a_changed_object_never_answers_for_the_old_one(small, capsys):
    """Its attribute, its weights in place, and the code of a rule that is defined anew."""
    small = {**small, "progress": True}
    model = Scaled()

    def scores(*samplers):
        results = bench.run(list(samplers), model=model, reference="digits", **small)
        return results.frame().score.tolist(), capsys.readouterr().err

    first, _ = scores(redefined(0.5))
    same, told = scores(redefined(0.5))
    assert same == first
    assert "1 of 1 trials are there already" in told
    other, told = scores(redefined(0.6))
    assert other != first
    assert "again at S=2: code of the sampler" in told
    model.scale = 1.2
    scaled, told = scores(redefined(0.6))
    assert scaled != other
    assert "weights changed since" in told
    with torch.no_grad():
        next(model.inside.parameters()).mul_(1.5)
    trained, told = scores(redefined(0.6))
    assert trained != scaled
    assert "weights changed since" in told


def test_weights_changed_in_place_count_whatever_a_fingerprint_says(small):
    network = bench.load_model("digits").model
    assert network.fingerprint
    network.name = "mine"
    before = bench.run("ddim:eta=0", model=network, reference="digits", **small).frame().score[0]
    with torch.no_grad():
        next(network.parameters()).mul_(1.5)
    assert bench.run("ddim:eta=0", model=network, reference="digits", **small).frame().score[0] != before


def test_a_model_that_counts_its_calls_is_itself_by_its_fingerprint(small, capsys):
    small = {**small, "progress": True}
    model = Scaled()
    model.calls, model.fingerprint = 0, "scaled by 1"
    answer = Scaled.__call__

    class Counting(Scaled):
        def __call__(self, x, t):
            self.calls += 1
            return answer(self, x, t)

    model.__class__ = Counting
    for expected in ("0 of", "1 of 1 trials are there already"):
        bench.run("ddim:eta=0", model=model, reference="digits", **small)
        told = capsys.readouterr().err
        assert (expected in told) == (expected != "0 of")
    assert model.calls > 0


def test_the_callers_float32_changes_no_sample_and_is_left_as_it_was(small, tmp_path):
    """On a CPU, medium precision rounds the factors of products to bfloat16."""
    expected = bench.run("ddim:eta=0", **small).frame().score[0]
    try:
        torch.set_float32_matmul_precision("medium")
        asked = {**small, "results": tmp_path / "others"}
        assert bench.run("ddim:eta=0", **asked).frame().score[0] == expected
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_network_is_left_as_it_was(small):
    model = Scaled()
    model.inside.train()
    kept = [p.requires_grad_(True) for p in model.inside.parameters()]
    assert kept
    bench.run("ddim:eta=0", model=model, reference="digits", **small)
    assert model.inside.training
    assert all(p.requires_grad for p in kept)


def test_a_network_that_a_function_names_is_run_in_evaluation_and_left_as_it_was(small):
    """Statistics of a batch would depend on which samples are drawn together, and change with every call."""
    normed = torch.nn.BatchNorm2d(1)
    inside = bench.load_model("digits").model
    space = {"inside": inside, "normed": normed}
    exec("def network(x, t): return inside(x, t).eps + 0.1 * normed(x)", space)
    model = bench.from_prediction(space["network"], inside.schedule, inside.shape, predicts="eps")
    before = {name: value.clone() for name, value in normed.state_dict().items()}
    bench.run("ddim:eta=0", model=model, reference="digits", **small)
    assert normed.training
    assert all(torch.equal(value, before[name]) for name, value in normed.state_dict().items())


def test_a_card_names_an_object_and_what_it_should_resemble(small):
    card = bench.ModelCard("mine", lambda: Scaled(), "scaled", data="digits")
    results = bench.run(own_rule, model=card, **small)
    assert results.frame().model.unique().tolist() == ["mine"]


def test_a_card_whose_name_looks_like_one_with_options_is_still_an_object(small):
    model = Scaled()
    card = bench.ModelCard("net:lr=1e-4", lambda: model, "scaled", data="digits")
    first = bench.run("ddim:eta=0", model=card, **small).frame().score[0]
    model.scale = 1.5
    assert bench.run("ddim:eta=0", model=card, **small).frame().score[0] != first


def test_a_taken_name_is_refused_and_nothing_stays_behind(small):
    card = bench.ModelCard("digits", lambda: Scaled(), "scaled", data="digits")
    with pytest.raises(UsageError, match="model 'digits' is already registered by sampler-bench"):
        bench.run(own_rule, model=card, **small)
    assert registry().models.entries["digits"] is not card
    assert "own-rule" not in registry().samplers.entries


@pytest.mark.parametrize(
    "more", [{"device": "cpu,cpu"}, {"device": ["cpu", "cpu"]}, {"executor": "processes"}, {"isolate": True}]
)
def test_an_object_cannot_go_to_another_process(more, small):
    with pytest.raises(UsageError, match="an object cannot go to another process: give one device"):
        bench.run(own_rule, **small, **more)


def test_a_file_that_was_changed_since_it_was_imported_is_refused(small, tmp_path):
    file = tmp_path / "mine.py"
    source = 'import bench\n\n\ndef make():\n    return bench.load_model("digits").model\n'
    file.write_text(source)
    asked = {**small, "model": f"{file}:make", "reference": "digits"}
    assert len(bench.run("ddim:eta=0", **asked).records) == 2
    file.write_text(source.replace("def make", "SCALE = 2\n\n\ndef make"))
    with pytest.raises(UsageError, match="was changed after this process imported it; start Python again"):
        bench.run("ddim:eta=0", **asked)


def test_an_object_whose_file_was_changed_since_it_was_imported_is_refused(small, tmp_path, monkeypatch):
    """It would be drawn by the old code, and its record would name the new one."""
    torch.save(torch.tensor(1.0), tmp_path / "w.pt")
    file = tmp_path / "object_of_a_file.py"
    file.write_text(READS_WEIGHTS)
    monkeypatch.syspath_prepend(tmp_path)
    model = __import__(file.stem).make()
    asked = {**small, "model": model, "reference": "digits"}
    file.write_text(f"# a comment\n\n{READS_WEIGHTS}")
    assert len(bench.run("ddim:eta=0", **asked).records) == 2
    file.write_text(READS_WEIGHTS.replace("self.scale *", "2 * self.scale *"))
    with pytest.raises(UsageError, match=f"{file.name} was changed after this process imported it"):
        bench.run("ddim:eta=0", **asked)
    del sys.modules[file.stem]


def test_weights_that_were_changed_on_the_disk_are_read_anew(small, tmp_path, capsys):
    """A model is told from itself by its weights, so that those of now must be what is drawn with."""
    (tmp_path / "mine.py").write_text(READS_WEIGHTS)
    asked = {**small, "model": f"{tmp_path}/mine.py:make", "reference": "digits", "progress": True}
    scores = []
    for scale in (1.0, 1.5):
        torch.save(torch.tensor(scale), tmp_path / "w.pt")
        scores.append(bench.run("ddim:eta=0", **asked).frame().score[0])
    assert "weights changed since" in capsys.readouterr().err
    assert scores[0] != scores[1]


READS_WEIGHTS = """
from pathlib import Path

import torch

import bench


class Net:
    variance = "fixed"

    def __init__(self):
        self.inside = bench.load_model("digits").model
        self.schedule, self.shape = self.inside.schedule, self.inside.shape
        self.scale = torch.load(Path(__file__).with_name("w.pt"))

    def __call__(self, x, t):
        return bench.Prediction(self.scale * self.inside(x, t).eps)


def make():
    return Net()
"""


def test_a_trial_that_fails_is_told_and_costs_no_other(small):
    @bench.sampler
    def broken(model, x, grid, noise):
        for _ in grid:
            raise ZeroDivisionError("no such luck")
            yield x

    results = bench.run([broken, "ddim:eta=0"], **small)
    assert results.failures == ["broken at S=2, step 1: ZeroDivisionError: no such luck"]
    assert "failed: broken at S=2" in results._repr_html_()
    assert sorted(results.frame().status) == ["done", "done", "failed"]


class Shown:
    """What IPython.display is to a notebook."""

    def __init__(self):
        self.updates = []

    def HTML(self, content):
        return content

    def display(self, content, display_id=None):
        self.updates.append(content)
        return SimpleNamespace(update=self.updates.append)


def test_a_notebook_gets_a_bar_that_ends_as_a_line(small, monkeypatch):
    shown = Shown()
    monkeypatch.setitem(showing.sys.modules, "IPython.display", shown)
    monkeypatch.setattr(showing, "in_notebook", lambda: True)
    monkeypatch.setattr(showing, "EVERY", 0.0)
    bench.run(["ddim:eta=0", "heun"], **{**small, "progress": True})
    assert shown.updates[0].startswith('<progress value="40" max="80"')
    assert any("1 of 2 trials" in one for one in shown.updates)
    assert shown.updates[-1].startswith("<small>2 trials computed in ")


def test_silence_where_it_is_asked_for(small, capfd):
    bench.run(["ddim:eta=0", own_rule], **small)
    assert capfd.readouterr() == ("", "")
