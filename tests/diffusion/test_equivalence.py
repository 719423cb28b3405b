"""Whether two samplers are one rule, told by their trajectories."""

import json

import pytest
from support.commands import bench

from bench import get_sampler, sampler
from bench.diffusion.equivalence import likenesses


def verdict(one, other, steps=10, spacing="linspace"):
    (found,) = likenesses([get_sampler(one), get_sampler(other)], [steps], spacing)
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dpmpp:order=1", "ddim"),
        ("ddpm:clip=none", "ddim:eta=1"),
        ("euler-ancestral:eta=0.5", "ddim:eta=0.5"),
        ("deis:order=4,basis=rho,final=none", "lms"),
    ],
)
def test_one_rule_under_two_names(one, other):
    found = verdict(one, other)
    assert found.same
    assert found.verdict.startswith("same to ")


def test_a_rule_that_yields_its_own_memory_again_is_the_same_rule():
    ddim = get_sampler("ddim")

    def rule(model, x, grid, noise):
        mine = x.clone()
        for state in ddim(model, x, grid, noise):
            yield mine.copy_(state)

    (found,) = likenesses([ddim, sampler(name="mine")(rule)], [5], "linspace")
    assert found.same


def test_other_end_rules_differ_at_the_end_alone():
    found = verdict("ipndm:final=only", "ipndm:final=none", spacing="trailing")
    assert not found.same
    assert found.verdict.startswith("same but for the last step")


def test_rules_that_share_their_first_step_differ_from_the_second():
    found = verdict("dpmpp-2m", "ddim")
    assert found.differences[0] < 1e-12
    assert found.verdict.startswith("differ from step 2 on")


def test_published_and_exact_weights_are_two_rules_from_the_third_value_on():
    assert verdict("dpmpp-3m", "dpmpp:order=3,weights=exact").verdict.startswith("differ from step 3 on")


def test_the_inner_state_of_diffusers_third_order_is_another_rule():
    assert not verdict("dpmpp-single:order=3", "dpmpp-single:order=3,inner=midpoint").same


def test_the_verb_tells_every_two_and_ends_with_1_where_two_differ():
    done = bench("equivalent", "ddim", "dpmpp:order=1", "dpmpp-2m", "--steps", "5,10", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert len(told) == 6
    assert [one["same"] for one in told] == [True, False, False] * 2
    assert bench("equivalent", "ddim", "euler").returncode == 0


def test_one_sampler_is_not_enough():
    done = bench("equivalent", "ddim")
    assert done.returncode == 2
    assert "give two samplers" in done.stderr
