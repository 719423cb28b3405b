"""Published multistep solvers on a closed-form network, to the end point, call by call."""

import pytest
from support.golden import MULTISTEP, final_of, grid_of, run_multistep

from bench import NoiseSchedule
from samplers.ode import planned


@pytest.mark.parametrize("name", MULTISTEP)
def test_the_trajectory_is_the_published_code_s(name):
    case = MULTISTEP[name]
    deviation, called = run_multistep(case)
    assert deviation <= case["tolerance"]
    assert len(called) == case["calls"]
    assert called == pytest.approx(case["called_t"], abs=1e-9)


@pytest.mark.parametrize("name", [name for name, case in MULTISTEP.items() if "orders" in case])
def test_the_orders_of_the_steps_are_the_published_code_s(name):
    case = MULTISTEP[name]
    orders = [
        p for _, p in planned(grid_of(case, NoiseSchedule.linear()), max(case["orders"]), final_of(case))
    ]
    assert orders[: len(case["orders"])] == case["orders"]
