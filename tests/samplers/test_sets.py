"""Sets of samplers: named together, run at their own numbers of steps."""

import json

import pytest
from support.commands import bench

from bench import get_sampler
from bench.commands.options import parse_samplers, steps_of_sets
from bench.plugins.loading import Registry, registry

SET = """
from bench import SamplerSet, hookimpl


@hookimpl
def bench_sampler_sets():
    return {NAME: SET}
"""


def test_all_is_every_set_the_papers_rows_first():
    assert parse_samplers(["all"]) == parse_samplers(["paper", "fast"])
    assert steps_of_sets(["paper"]) == (10, 20, 50, 100, 1000)


def test_every_member_is_there_and_no_two_are_one_rule():
    for one in registry().sets.values():
        specs = [get_sampler(name).spec for name in one.samplers]
        assert len(set(specs)) == len(specs)


def test_steps_are_the_sets_own_where_nothing_else_is_named():
    assert steps_of_sets(["fast"]) == (5, 8, 10, 20)
    assert steps_of_sets(["fast", "paper"]) == (5, 8, 10, 20, 50, 100, 1000)
    assert steps_of_sets(["fast", "ddim:eta=0.3"]) == ()
    assert steps_of_sets([]) == ()


def test_a_plugin_s_set_is_run_by_name_at_its_steps(tmp_path):
    text = SET.replace("NAME", "'two'").replace("SET}", "SamplerSet(('ddim', 'dpmpp-2m'), (4,))}")
    (tmp_path / "two.py").write_text(text)
    asked = ["--plugin", tmp_path / "two.py", "--samplers", "two", "--n", "20", "--dry-run", "--json"]
    done = bench("run", *asked, "--results", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert "@4" in done.stdout
    assert "@10" not in done.stdout
    assert (
        json.loads(bench("list", "sets", "--plugin", tmp_path / "two.py", "--json").stdout)["sets"][-1][
            "steps"
        ]
        == "4"
    )


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("'ddim'", "SamplerSet(('ddim',), (4,))", "the name of a sampler"),
        ("'all'", "SamplerSet(('ddim',), (4,))", "the name of a sampler or of all"),
        ("'two'", "('ddim',)", "expected a SamplerSet"),
    ],
)
def test_a_set_that_cannot_be_one_gets_its_sentence(tmp_path, name, value, sentence):
    (tmp_path / "set.py").write_text(SET.replace("NAME", name).replace("SET}", value + "}"))
    fresh = Registry()
    fresh.load_built_ins()
    fresh.load_file(tmp_path / "set.py")
    (failure,) = fresh.failures
    assert sentence in failure.message
