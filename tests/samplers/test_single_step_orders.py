"""The order of every single-step and stochastic rule, on laws whose answer is known."""

import pytest
from support.flows import flow_error, law_error, slope

from bench import get_sampler

FLOWS = {
    "euler": 1.01,
    "heun": 2.02,
    "dpm2": 2.01,
    "dpm-single:order=2,form=heun": 2.0,
    "dpm-single:order=3": 2.97,
    "dpm-single:order=3,form=heun": 3.01,
    "dpmpp-2s": 1.98,
    "dpmpp-single:order=2,form=heun": 1.98,
    "dpmpp-single:order=3": 2.97,
    "dpmpp-single:order=3,inner=midpoint": 2.97,
    "dpmpp-single:order=3,form=heun": 2.98,
    "er-sde:order=1,scale=ode": 1.0,
    "er-sde:order=2,scale=ode": 2.0,
    "er-sde:order=3,scale=ode": 2.0,
    "er-sde:order=3,scale=ode,weights=exact": 3.0,
}


@pytest.mark.parametrize("spec", FLOWS)
def test_end_points_of_a_mixture_converge_with_the_order_of_the_rule(spec):
    assert slope(flow_error, spec) == pytest.approx(FLOWS[spec], abs=0.15)


LAWS = {
    "ddim:eta=0.5": 0.99,
    "euler-a": 0.98,
    "dpm2-ancestral": 2.01,
    "dpmpp-2s-ancestral": 1.98,
    "dpmpp-sde-single": 0.96,
    "edm:churn=40": 1.93,
    "er-sde:order=1": 1.0,
    "er-sde:order=2": 2.0,
    "er-sde:order=3": 2.0,
    "er-sde:order=1,scale=sde": 1.0,
    "er-sde:order=2,scale=sde": 2.0,
}


@pytest.mark.parametrize("spec", LAWS)
def test_the_law_on_gaussian_data_converges_with_the_weak_order_of_the_rule(spec):
    assert slope(law_error, spec) == pytest.approx(LAWS[spec], abs=0.15)


@pytest.mark.parametrize("spec", [*FLOWS, *LAWS])
def test_the_order_that_a_rule_declares_is_the_measured_one(spec):
    assert get_sampler(spec).order == round((FLOWS | LAWS)[spec])


def test_three_values_beat_the_published_weights_of_er_sde():
    """Both are of weak order 2 in the end; the exact weights leave a tenth of the error here."""
    published, exact = (law_error(f"er-sde:order=3,weights={one}", 160) for one in ("published", "exact"))
    assert exact < published / 10


def test_restarts_converge_where_their_own_levels_do():
    """With a fixed number of levels from high to low an error remains, whatever the number of steps."""

    def error(spec, steps):
        return law_error(f"{spec},points={steps // 16 + 1}", steps)

    assert slope(error, "restart:low=0.05,high=1") == pytest.approx(2, abs=0.15)
    assert get_sampler("restart").order is None
