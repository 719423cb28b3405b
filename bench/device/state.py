"""The global state of a process, which the code of a user may change: read, compared, put back."""

from __future__ import annotations

import os
import pickle
import random
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import numpy as np
import torch

State = Mapping[str, tuple[Callable[[], object], Callable[..., object]]]
"""What is global: how it is read, and how it is put back."""


def _set_environment(variables: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


_SIGNALS = tuple(int(number) for number in signal.valid_signals())


def _handlers() -> dict[int, object]:
    return {number: signal.getsignal(number) for number in _SIGNALS}


def _set_handlers(handlers: Mapping[int, signal.Handlers]) -> None:
    for number, handler in handlers.items():
        if signal.getsignal(number) != handler:
            with suppress(TypeError, ValueError, OSError):  # set by native code; or not in the main thread
                signal.signal(number, handler)


def _set_filters(filters: list[tuple[object, ...]]) -> None:
    warnings.resetwarnings()  # it has Python forget what it knows of the filters
    warnings.filters[:] = filters  # type: ignore[index]


STATE: State = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's deterministic mode": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "torch's global generator": (
        lambda: torch.get_rng_state().numpy().tobytes(),
        lambda value: torch.set_rng_state(torch.frombuffer(bytearray(value), dtype=torch.uint8)),
    ),
    "Python's global generator": (random.getstate, random.setstate),
    "NumPy's global generator": (
        lambda: pickle.dumps(np.random.get_state()),
        lambda value: np.random.set_state(pickle.loads(value)),
    ),
    "the working directory": (os.getcwd, os.chdir),
    "the environment": (lambda: dict(os.environ), _set_environment),
}
"""What a sampler must leave as it is."""

PROCESS: State = {
    **STATE,
    "the signal handlers": (_handlers, _set_handlers),
    "NumPy's answer to errors": (np.geterr, lambda answers: np.seterr(**answers)),
    "torch's search for anomalies": (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda modes: torch.autograd.set_detect_anomaly(*modes),
    ),
}
"""What no block may leave changed: no trial depends on those before it."""

PUT_BACK: State = {**PROCESS, "the filters of warnings": (lambda: list(warnings.filters), _set_filters)}
"""What is put back after every block: filters too, for which a library that is imported late is to blame."""


def read_state(state: State = STATE) -> dict[str, object]:
    """Return all that is global as it is now, by name."""
    return {name: read() for name, (read, _) in state.items()}


def changed_since(before: Mapping[str, object], state: State = STATE) -> list[str]:
    """Return the names of what has changed since `read_state`."""
    now = read_state(state)
    return [name for name in before if before[name] != now[name]]


@contextmanager
def put_back(state: State = STATE) -> Iterator[None]:
    """Put back at the end whatever is changed within."""
    before = read_state(state)
    try:
        yield
    finally:
        for name in changed_since(before, state):
            state[name][1](before[name])


def seed_everything(seed: int) -> None:
    """Set torch's, Python's and NumPy's global generators to a seed, of which NumPy takes 32 bits."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
