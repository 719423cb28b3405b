"""Published single-step and stochastic solvers on a closed-form network, to the end point and call by call.

`blocks` of a case are the orders of its steps.
"""

import numpy as np
import pytest
import torch
from support.golden import SINGLE, SINGLE_ARRAYS, Toy, published_moments, run_single

from samplers.ddim_inversion import inverted
from samplers.ode import Level

FORWARD = [name for name, case in SINGLE.items() if case["sampler"] != "ddim-inverse"]


@pytest.mark.parametrize("name", FORWARD)
def test_end_point_and_calls_are_the_published_code_s(name, tmp_path):
    case = SINGLE[name]
    deviation, called = run_single(case, published_moments(tmp_path))
    assert len(called) == case["calls"]
    assert called == pytest.approx(case["called_t"], abs=1e-9)
    assert deviation <= case["tolerance"]


def test_inversion_told_the_target_is_the_published_code_s():
    """Its first step leads from the level of t = 0 to itself."""
    case = SINGLE["ddiminverse_lin_S10"]
    model = Toy(case)
    levels = [Level.at(model, int(t)) for t in [0, *case["grid"]]]
    x = inverted(model, torch.from_numpy(SINGLE_ARRAYS["ddiminverse_lin_S10_xT"]), levels, "target")
    assert model.called == case["called_t"]
    assert np.abs(x.numpy() - SINGLE_ARRAYS["ddiminverse_lin_S10_final"]).max() <= case["tolerance"]
