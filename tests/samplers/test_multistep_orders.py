"""The order of every multistep rule, on laws whose answer is known, on a grid even in log SNR."""

import pytest
from support.flows import flow_error, law_error, slope

FLOWS = {
    "dpmpp:order=1": 1.01,
    "dpmpp:order=2": 2.00,
    "dpmpp:order=2,form=heun": 2.02,
    "dpmpp:order=3": 1.98,
    "dpmpp:order=3,weights=exact": 3.00,
    "dpm-solver:order=2": 1.98,
    "dpm-solver:order=2,form=heun": 1.97,
    "dpm-solver:order=3": 2.08,
    "dpm-solver:order=3,weights=exact": 3.00,
    "unipc:order=1,b=bh2,final=only": 1.99,
    "unipc:order=2,b=bh1,final=only": 3.00,
    "unipc:order=2,b=bh2,final=only": 3.07,
    "unipc:order=3,b=bh1,final=only": 3.91,
    "unipc:order=3,b=bh2,final=only": 3.91,
    "unipc:order=3,b=bh2,predict=eps,final=only": 3.70,
    "unipc:order=3,b=bh2": 2.98,
    "deis:order=2,basis=logrho": 1.97,
    "deis:order=3,basis=logrho": 3.00,
    "deis:order=2,basis=rho": 1.96,
    "deis:order=3,basis=rho": 2.91,
    "deis:order=4,basis=rho": 3.85,
    "deis:order=2": 1.96,
    "deis:order=3": 2.92,
    "deis:order=4": 3.98,
    "lms": 3.85,
    "ipndm:order=2": 1.98,
    "ipndm:order=3": 2.00,
    "ipndm:order=4": 2.00,
    "ipndm-v:order=3": 2.97,
    "ipndm-v:order=4": 2.71,
    "ipndm-v:order=3,weights=exact": 2.91,
    "ipndm-v:order=4,weights=exact": 3.85,
    "pndm": 2.00,
    "sa-solver:predictor=2,corrector=2,tau=0,mode=more,final=only": 1.76,
    "sa-solver:predictor=3,corrector=4,tau=0,mode=more,final=only": 3.91,
    "sa-solver:predictor=3,corrector=0,tau=0,mode=more,final=only": 3.00,
}


@pytest.mark.parametrize("spec", FLOWS)
def test_end_points_of_a_mixture_converge_with_the_order_of_the_rule(spec):
    assert slope(flow_error, spec) == pytest.approx(FLOWS[spec], abs=0.15)


LAWS = {
    "dpmpp-sde:order=1": 0.98,
    "dpmpp-sde:order=2": 2.00,
    "dpmpp-sde:order=2,form=heun": 2.01,
    "dpmpp-sde:order=2,eta=0.5": 2.00,
    "dpmpp-sde:order=3,form=heun": 2.02,
    "dpmpp-sde:order=3,form=heun,weights=exact": 2.02,
    "sa-solver:predictor=1,corrector=0,mode=more,final=only": 0.98,
    "sa-solver:predictor=2,corrector=0,mode=more,final=only": 2.01,
    "sa-solver:predictor=3,corrector=0,mode=more,final=only": 2.02,
    "sa-solver:predictor=2,corrector=2,mode=more,final=only": 2.98,
    "sa-solver:predictor=2,corrector=2,mode=few,final=only": 2.10,
    "sa-solver:predictor=3,corrector=4,mode=more,final=only": 1.99,
}


@pytest.mark.parametrize("spec", LAWS)
def test_the_law_of_gaussian_data_converges_with_the_weak_order_of_the_rule(spec):
    assert slope(law_error, spec) == pytest.approx(LAWS[spec], abs=0.15)
