"""What several tests share."""

import os
import signal
from pathlib import Path

import pytest
import torch
from support import browser as chromium

# Tests are small: threads that wait for one another cost more than they bring, here and in the processes
# that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# A shell starts what it puts in the background with interrupts ignored; the tests of interrupts need them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def test_data():
    """The folder with real CIFAR-10 and MNIST and the Inception weights that the environment names."""
    return _folder("SAMPLER_BENCH_TEST_DATA", "real images and Inception weights")


@pytest.fixture(scope="session")
def shared():
    """The folder with reference networks and published figures that the environment names."""
    return _folder("SAMPLER_BENCH_SHARED", "reference networks and published figures")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; a module that asks for it skips where there is none."""
    made = chromium.Browser(chromium.find())
    yield made
    made.close()


def _folder(variable, what):
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"{variable} is not set: no {what}")
    return Path(path)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Keep reference statistics out of the user's cache, and share them between tests."""
    monkeypatch.setenv("SAMPLER_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
