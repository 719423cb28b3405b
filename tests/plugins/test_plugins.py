"""A third party's distribution, built and installed for real."""

import json
from pathlib import Path

import pytest
from support.commands import bench
from support.distributions import build, install
from support.plugins import HEUN, PYPROJECT

from bench import load_results
from bench.plugins import specs
from bench.plugins.loading import HOOKS, Registry

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with an installed third-party plugin, as pip leaves it."""
    source = tmp_path_factory.mktemp("plugin")
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "heun_plugin.py").write_text(HEUN)
    dist, target = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    build(source, dist, "--wheel")
    (wheel,) = dist.glob("*.whl")
    install(wheel, target)
    return target


def test_an_installed_plugin_is_listed_with_its_version(installed):
    out = bench("list", "samplers", "--json", site=installed)
    assert out.returncode == 0, out.stderr
    entry = next(e for e in json.loads(out.stdout)["samplers"] if e["name"] == "my-heun")
    assert (entry["plugin"], entry["version"], entry["order"]) == ("heun-for-sampler-bench", "1.2.3", 2)


def test_an_installed_plugin_is_a_row_of_the_sweep_with_its_calls_counted(installed, tmp_path):
    options = ["--model", "exact-gaussian", "--n", "60", "--steps", "5", "--results", tmp_path]
    out = bench("run", "--samplers", "all", *options, site=installed)
    assert out.returncode == 0, out.stderr
    table = load_results(tmp_path).set_index("label")
    assert len(table) == 19 + 1 + 1  # the built-in rows, the plugin's and that of real images
    assert table.loc["my-heun"].network_calls == 9
    record = json.loads(next((tmp_path / "records").glob("*my-heun*.json")).read_text())
    assert record["sampler"]["plugin"] == "heun-for-sampler-bench"
    assert record["provenance"]["code of the sampler"]


def test_an_installed_plugin_s_new_source_makes_its_record_stale(installed, tmp_path):
    options = ["--samplers", "my-heun", "ddim", "--model", "exact-gaussian", "--n", "40", "--steps", "5"]
    bench("run", *options, "--results", tmp_path, site=installed)
    module = installed / "heun_plugin.py"
    before = module.read_text()
    module.write_text(before + "\nCHANGED = True\n")
    try:
        out = bench("run", *options, "--results", tmp_path, site=installed)
    finally:
        module.write_text(before)
    assert "stale: my-heun at S=5: code of the sampler changed since" in out.stderr
    assert "1 of 2 trials are there already" in out.stderr


def test_check_finds_the_plugin_sound(installed):
    out = bench("check", "my-heun", site=installed)
    assert out.returncode == 0, out.stdout
    assert "FAIL" not in out.stdout
    assert "declared 2" in out.stdout


def test_check_takes_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(HEUN)
    out = bench("check", tmp_path / "mine.py")
    assert out.returncode == 0, out.stdout + out.stderr
    assert "39 and 79 calls in 20 and 40 steps, 2 a step more, declared 2" in out.stdout


def test_a_file_s_samplers_are_its_own_whoever_loaded_it_first(tmp_path):
    (tmp_path / "mine.py").write_text(HEUN)
    file = tmp_path / "mine.py"
    out = bench("check", file, file, "--plugin", file, "--badge")
    assert out.returncode == 0, out.stderr
    assert out.stdout.count("clauses kept](") == 1


def test_two_samplers_of_one_label_are_both_told_and_what_they_print_is_no_part_of_it(tmp_path):
    text = HEUN.replace("noise):", 'noise, *, k: int = 1, b: str = "slow", c: str = "slow"):')
    text = text.replace("[my_heun]", '[my_heun.with_(b="fast"), my_heun.with_(c="fast")]')
    text = text.replace("yield x", "print('hello')\n        yield 0.9 * x if b == 'fast' else x")
    (tmp_path / "mine.py").write_text(text)
    out = bench("check", tmp_path / "mine.py", "--json")
    assert out.returncode == 1
    told = ["my-heun:k=1,b=fast,c=slow", "my-heun:k=1,b=slow,c=fast", "my-heun k=1"]  # the plain rule too
    assert list(json.loads(out.stdout)) == told
    assert "hello" in out.stderr


CHECKER = """
from __future__ import annotations
from typing import TYPE_CHECKING, Literal
from bench import get_sampler, hookimpl, sampler
if TYPE_CHECKING:
    from torch import Tensor
    from bench import Grid

class Rule:
    def __call__(self, model, x, grid, noise):
        yield from get_sampler("ddim")(model, x, grid, noise)

def rule(model, x: Tensor, grid: Grid, noise, *, order: Literal[1, 2] = 1):
    assert order in (1, 2)
    yield from get_sampler("ddim")(model, x, grid, noise)

def loose(model, x, grid, noise, *, rho: float | None = None):
    yield x

@hookimpl
def bench_samplers():
    named = [sampler(name=name)(rule) for name in ("a:b", "fast")]
    return [sampler(rule), sampler(name="instance")(Rule()), sampler(loose), *named]
"""


def test_a_rule_is_found_by_its_text_or_refused_where_that_cannot_name_it(tmp_path):
    (tmp_path / "mine.py").write_text(CHECKER)
    asked = ["--model", "exact-gaussian", "--n", "40", "--steps", "5", "--results", tmp_path / "results"]
    out = bench("run", "--plugin", tmp_path / "mine.py", "--samplers", "rule:order=2", *asked)
    assert "Traceback" not in out.stderr
    assert set(load_results(tmp_path / "results").status) == {"done"}, out.stderr
    for refused in ("'instance' is a Rule", "rho of sampler 'loose'", "'a:b'", "'fast'"):
        assert refused in out.stderr


def test_named_samplers_are_there_and_no_part_of_all(tmp_path):
    (tmp_path / "mine.py").write_text(
        HEUN.replace("bench_samplers", "bench_named_samplers").replace(
            "[my_heun]", "[my_heun.with_(alias='h')]"
        )
    )
    registry = Registry()
    registry.load_built_ins()
    before = list(registry.default_samplers)
    registry.load_file(tmp_path / "mine.py")
    assert registry.failures == []
    assert registry.samplers.get("h").function is registry.samplers.get("my-heun").function
    assert list(registry.default_samplers) == before
    out = bench("check", tmp_path / "mine.py")
    assert out.returncode == 0, out.stdout + out.stderr
    assert out.stdout.count("has the declared order") == 1  # two names of one spec


def test_a_plugin_that_raises_in_a_hook_leaves_the_others_alone(tmp_path):
    registry = Registry()
    registry.load_built_ins()
    before = list(registry.default_samplers)
    (tmp_path / "raises.py").write_text(
        "from bench import hookimpl\n@hookimpl\ndef bench_samplers():\n    raise RuntimeError('no')\n"
    )
    registry.load_file(tmp_path / "raises.py")
    (failure,) = registry.failures
    assert (failure.stage, failure.message) == ("bench_samplers", "RuntimeError: no")
    assert "RuntimeError: no" in failure.traceback
    assert list(registry.default_samplers) == before
    (tmp_path / "good.py").write_text(HEUN)
    registry.load_file(tmp_path / "good.py")
    assert "my-heun" in registry.samplers.entries


def test_every_hook_is_documented():
    assert len(HOOKS) == 10
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    for name in HOOKS:
        assert getattr(specs, name).__doc__
        assert f"`{name}`" in text


EVERYTHING = '''
import numpy as np
from bench import ModelCard, hookimpl
from bench import Score
from models.exact import ExactMixture
from bench.data import load_images


class Brightness:
    """Distance of the mean brightness: a score a plugin could bring."""

    name, space, needs, higher_is_better = "brightness", "pixels", "moments", False

    def score(self, sample, reference):
        value = abs(float(sample.total.mean.mean() - reference.mean.mean()))
        return Score("brightness", value, value, float("nan"), (), sample.n, reference.space, reference.hash)


def make():
    return ExactMixture(load_images("digits").images[:3].float() / 127.5 - 1, 0.1)


@hookimpl
def bench_models():
    return [ModelCard("three-digits", make, "three digits", metrics=("brightness", "fd_pixels"))]


@hookimpl
def bench_metrics():
    return [Brightness()]


@hookimpl
def bench_spacings():
    return {"lower-half": lambda T, S: [k * T // (2 * S) for k in range(S)]}
'''


def test_models_metrics_and_spacings_come_from_plugins_too(tmp_path):
    (tmp_path / "everything.py").write_text(EVERYTHING)
    plugin = ["--plugin", tmp_path / "everything.py"]
    options = ["--model", "three-digits", "--spacing", "lower-half", "--samplers", "ddim", "--n", "40"]
    out = bench("run", *plugin, *options, "--steps", "5", "--results", tmp_path / "r")
    assert out.returncode == 0, out.stderr
    row = load_results(tmp_path / "r").set_index("sampler").loc["ddim"]
    assert (row.model, row.spacing, row.metric) == ("three-digits", "lower-half", "brightness")
    assert 0 <= row.score < 1
    assert row.fd_pixels > 0
    listed = json.loads(bench("list", *plugin, "--json").stdout)
    for kind, name in (("models", "three-digits"), ("metrics", "brightness"), ("spacings", "lower-half")):
        assert name in {entry["name"] for entry in listed[kind]}
