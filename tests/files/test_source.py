"""Which changes of the code make a record old: those of what it computes with, and no others."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import EpsilonModel, get_sampler, to_uint8
from bench.files import source
from bench.files.source import closure, code_hash
from bench.metrics.copying import CopyingMetric
from bench.metrics.frechet_score import FrechetMetric
from bench.metrics.kernel import KernelMetric
from bench.plugins.loading import Registry
from bench.plugins.lookup import load_model, weights_hash
from bench.sweep.worker import draw

PACKAGES = ("bench", "samplers", "models")
CACHES = (source._visit, source._read, source._file_of)


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """A function that returns the hash of some code as it would be had one file another text."""
    copy = tmp_path / "copy"
    for package in PACKAGES:
        shutil.copytree(
            source.ROOT / package, copy / package, ignore=shutil.ignore_patterns("assets", "__pycache__")
        )

    def hash_with(change, *objects):
        with monkeypatch.context() as patch:
            change(copy)
            patch.setattr(source, "ROOT", copy)
            for cache in CACHES:
                cache.cache_clear()
            try:
                return code_hash(*objects)
            finally:
                for cache in CACHES:
                    cache.cache_clear()

    return hash_with


def replaced(obj, old, new):
    """Return a change of the file that defines an object: ``old`` becomes ``new``, wherever the file lies."""
    file = Path(sys.modules[obj.__module__].__file__).resolve().relative_to(source.ROOT)

    def change(root):
        text = (root / file).read_text()
        assert old in text, f"{file} holds no {old!r}"
        (root / file).write_text(text.replace(old, new))

    return change


def network():
    return load_model("cifar10-small").model


def part(name):
    """Return a function or class of the project by its name in the closure of what draws or scores."""
    found = [
        one
        for one in closure(draw, to_uint8, network(), FrechetMetric, KernelMetric, CopyingMetric)[1]
        if one[1] == name and one[0].count(".")
    ]
    (module,) = {
        module for module, _ in found if name in source._read(source._file_of(module), module).definitions
    }
    return getattr(importlib.import_module(module), name)


def test_what_draws_is_all_that_draws_and_nothing_of_the_harness():
    names = {name for _, name in closure(draw, to_uint8)[1]}
    assert names >= {"normal_noise", "philox_numpy", "Meter", "allow_tf32", "trajectory", "Grid", "to_uint8"}
    assert names >= {"PRECISIONS", "Film", "checked", "bound"}
    assert not names & {"Worker", "Record", "Store", "Registry", "ModelCard", "load_images", "main"}


def test_a_network_counts_with_its_layers_and_not_with_its_loaders():
    names = {name for _, name in closure(network())[1]}
    assert names >= {"EpsilonNetwork", "UNet", "ResBlock", "Attention", "sinusoidal_embedding", "group_norm"}
    assert "NoiseSchedule" in names
    assert not names & {"load_checkpoint", "get_card", "download", "DigitsNetwork"}


def test_a_score_counts_with_what_it_is_made_of():
    names = {name for _, name in closure(FrechetMetric)[1]}
    assert names >= {"FrechetReference", "GroupedStatistics", "Moments", "jackknife"}
    assert not names & {"mmd", "KernelMetric", "InceptionSpace"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("UNet", "return ", "return 1.5 * "),
        ("sinusoidal_embedding", "10000", "9999"),
        ("group_norm", "32", "16"),
    ],
)
def test_a_changed_network_is_another_one(edited, name, old, new):
    model = network()
    before = code_hash(model)
    defined = part(name)
    file = Path(sys.modules[defined.__module__].__file__).read_text()
    old = old if old in file else re.search(r"\d+", file[file.index(f" {name}") :]).group()
    assert edited(replaced(defined, old, new), model) != before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (
            "Meter",
            "return torch.autocast(device, precision,",
            "return torch.autocast(device, torch.float16,",
        ),
        ("allow_tf32", "= products\n", "= True\n"),
        ("TrajectoryNoise", "index + 1", "index + 2"),
        ("to_uint8", "255", "254"),
    ],
)
def test_a_change_of_what_draws_is_another_hash(edited, name, old, new):
    defined = {"draw": draw, "to_uint8": to_uint8}.get(name) or part(name)
    assert edited(replaced(defined, old, new), draw, to_uint8) != code_hash(draw, to_uint8)


@pytest.mark.parametrize(
    ("metric", "name", "changes"),
    [
        (KernelMetric, "mmd", True),
        (KernelMetric, "Moments", False),
        (KernelMetric, "GroupedStatistics", True),
        (FrechetMetric, "FrechetReference", True),
        (FrechetMetric, "jackknife", True),
        (FrechetMetric, "mmd", False),
    ],
)
def test_a_score_is_another_where_what_it_is_made_with_is(edited, metric, name, changes):
    defined = part(name)

    def change(root):
        file = Path(sys.modules[defined.__module__].__file__).resolve().relative_to(source.ROOT)
        text = (root / file).read_text()
        at = re.search(rf"^(def|class) {name}\b.*?^ +return ", text, re.M | re.S).end()
        (root / file).write_text(f"{text[:at]}1 and {text[at:]}")

    # A class of moments is part of every grouped sum, so that the hash of each metric holds it.
    expected = changes or name == "Moments"
    assert (edited(change, metric) != code_hash(metric)) is expected


def test_words_do_not_count(edited):
    """Docstrings, comments, texts of errors, annotations and import lines, in every file of the project."""

    def reword(root):
        for file in root.rglob("*.py"):
            text = file.read_text()
            text = text.replace('"""', '"""Three more words. ', 1)
            text = re.sub(r'^(    +)"""(?=\w)', r'\1"""Three more words: ', text, flags=re.M)
            text = re.sub(r"^from bench", "# a comment\nfrom bench", text, flags=re.M)
            text = text.replace("-> Tensor:", "-> object:").replace(
                "returned values that are", "gave values that are"
            )
            file.write_text(text + "\n# the end\n")

    parts = (draw, to_uint8, network(), FrechetMetric, get_sampler("ddpm").function)
    assert edited(reword, *parts) == code_hash(*parts)


def test_moving_a_definition_to_another_file_changes_nothing(edited):
    def move(root):
        """Split a module in two: what it defined is imported from another file under another name."""
        for file in [*root.rglob("layers.py"), *root.rglob("noise.py")]:
            file.rename(file.with_name("elsewhere.py"))
            package = ".".join(file.relative_to(root).parent.parts)
            for other in root.rglob("*.py"):
                text = other.read_text()
                other.write_text(text.replace(f"{package}.{file.stem} import", f"{package}.elsewhere import"))

    for name in ("ResBlock", "normal_noise"):
        part(name)
    model = network()
    roots = [get_sampler("ddim").function, FrechetMetric]
    # Objects know the file they were read from, so the moved ones are reached through others.
    before = {address[1] for address in closure(model)[1]}
    assert "ResBlock" in before
    assert edited(move, *roots, draw) == code_hash(*roots, draw)


MODEL = """
import torch
from bench import NoiseSchedule, Prediction


class Net:
    schedule, shape, variance = NoiseSchedule.linear(), (1, 2, 2), "fixed"

    def __init__(self):
        self.layer = torch.nn.Linear(4, 4)

    def __call__(self, x, t):
        return Prediction(self.layer(x.flatten(1)).view_as(x){factor})


def make():
    torch.manual_seed({seed})
    return Net()
"""


def test_a_users_model_counts_with_its_file_and_its_weights(tmp_path):
    def loaded(name, factor="", seed=0):
        file = tmp_path / f"{name}.py"
        file.write_text(MODEL.format(factor=factor, seed=seed))
        model: EpsilonModel = load_model(f"{file}:make").model
        return weights_hash(model), code_hash(model)

    first, again, changed, other = loaded("a"), loaded("b"), loaded("c", " * 1.5"), loaded("d", seed=1)
    assert first == again
    assert changed[0] == first[0] and changed[1] != first[1]
    assert other[0] != first[0]


METRIC = """
from bench import hookimpl
{line}


class Mine:
    name, space, needs, higher_is_better = "mine", "pixels", "moments", False

    def score(self, sample, reference):
        return {use}(sample, reference)


@hookimpl
def bench_metrics():
    return [Mine()]
"""


@pytest.mark.parametrize(
    ("form", "use"),
    [
        ("import {module}", "{module}.mmd"),
        ("import {module} as m", "m.mmd"),
        ("from {package} import {last}", "{last}.mmd"),
        ("from {module} import mmd", "mmd"),
    ],
)
def test_a_plugin_depends_on_what_it_uses_of_the_project(edited, tmp_path, form, use):
    mmd = part("mmd")
    package, _, last = mmd.__module__.rpartition(".")
    path = tmp_path / "mine.py"
    line, use = (text.format(module=mmd.__module__, package=package, last=last) for text in (form, use))
    path.write_text(METRIC.format(line=line, use=use))
    registry = Registry()
    registry.load_file(path)
    metric = type(registry.metrics.entries["mine"])
    before = code_hash(metric)
    assert edited(replaced(mmd, "return Mmd(", "return 1 and Mmd("), metric) != before
    path.write_text(METRIC.format(line=line, use=use) + "\nCHANGED = True\n")
    assert code_hash(metric) != before


def test_scores_of_a_changed_network_are_drawn_anew(tmp_path):
    """From end to end, in a copy of the project: the network, then the meter, then words alone."""
    for package in PACKAGES:
        shutil.copytree(
            source.ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )

    def run():
        asked = "run --samplers ddim:eta=0 --steps 2 --n 20 --results r --metrics fd_pixels"
        out = subprocess.run(
            [sys.executable, "-m", "bench", *asked.split()],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path), "PATH": "", "MPLBACKEND": "agg"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert out.returncode == 0, out.stderr
        record = json.loads(next(path for path in (tmp_path / "r/records").glob("*S2-*.json")).read_text())
        return out.stderr, record["scores"]["fd_pixels"]["value"]

    def change(module, old, new):
        file = tmp_path / Path(sys.modules[module].__file__).resolve().relative_to(source.ROOT)
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    digits = load_model("digits").model
    _, first = run()
    said, same = run()
    assert "1 of 1 trials are there already" in said and same == first
    change(
        type(digits).__module__,
        "return Prediction(output[:, :channels]",
        "return Prediction(1.5 * output[:, :channels]",
    )
    said, other = run()
    assert "stale: ddim eta=0 at S=2: code of the model changed since" in said
    assert abs(other - first) > 1
    change(draw.__module__, '"""Draw the samples', '"""Three more words. Draw the samples')
    said, same = run()
    assert "1 of 1 trials are there already" in said and same == other
