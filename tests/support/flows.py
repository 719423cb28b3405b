"""The order of a sampler by name, on the conformance kit's exact laws."""

import math

from bench import get_sampler
from bench.diffusion import orders


def flow_error(spec, steps):
    """The greatest error of the end points of a mixture's probability flow."""
    return orders.flow_error(get_sampler(spec), steps)


def law_error(spec, steps):
    """The error of the standard deviation on Gaussian data."""
    return orders.law_error(get_sampler(spec), steps)


def slope(error, spec, steps=(160, 320)):
    """The order of convergence: the slope of the logarithms of two errors."""
    coarse, fine = (error(spec, n) for n in steps)
    return math.log(coarse / fine) / math.log(steps[1] / steps[0])
