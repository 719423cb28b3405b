"""The sweep: what is to be computed, what is there already, and the loop between."""

from bench.sweep.request import Sweep
from bench.sweep.runner import Runner

__all__ = ["Runner", "Sweep"]
