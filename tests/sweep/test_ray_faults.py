"""Workers of a Ray cluster that end, hang or are stopped, and clusters that are not there."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace

import pytest
from support.clusters import drawn, is_alive, plugin_folder, records, sweep, two_nodes, until
from support.commands import bench

from bench.errors import BenchError, UsageError
from bench.sweep.executors.ray import Ray, _connected

pytest.importorskip("ray", reason="Ray is not installed: pip install 'sampler-bench[ray]'")

TIMEOUT = 5


command = partial(sweep, n=10, batch=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return plugin_folder(tmp_path_factory, "ray-faults")


@pytest.fixture(scope="module")
def done(folder):
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with two_nodes() as cluster:
        cluster_options = ("--executor", "ray", "--address", cluster.address, "--timeout", TIMEOUT)
        asked = command(folder, "results", "stops", "exits", "hangs", "ddim")
        ended = bench(*asked, *cluster_options)
    ended.drawn = {name: drawn(folder, name) for name in ("stops", "exits", "hangs")}
    return ended


def test_a_process_that_ends_or_hangs_twice_is_a_record_with_its_reason(done, folder):
    found = records(folder / "results")
    assert done.returncode == 1, done.stderr
    failed = {
        name: (one["failure"]["stage"], one["message"])
        for name, one in found.items()
        if one["status"] == "failed"
    }
    assert failed == {
        "exits": ("step 2", "the process ended with exit status 3"),
        "hangs": ("step 2", f"it took longer than {TIMEOUT} s; --timeout SECONDS allows another time a step"),
    }
    assert {name: len(done.drawn[name]) for name in failed} == {"exits": 2, "hangs": 2}


def test_a_worker_that_is_stopped_costs_time_alone(done, folder):
    found = records(folder / "results")
    assert found["stops"]["status"] == found["ddim"]["status"] == "done"
    assert len({process for _, process, _ in done.drawn["stops"]}) == 2
    fresh = command(folder, "alone", "stops", "ddim")
    assert bench(*fresh, "--executor", "serial").returncode == 0
    alone = records(folder / "alone")
    for name in ("stops", "ddim"):
        assert found[name]["images"] == alone[name]["images"]
        assert found[name]["scores"] == alone[name]["scores"]


def test_no_process_is_left(done):
    every = {one for drawn in done.drawn.values() for _, *both in drawn for one in both}
    until(lambda: not any(map(is_alive, every)))


@pytest.fixture(scope="module")
def stranger():
    """The port of a server that is not Ray: it greets and says no more."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet():
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=greet, daemon=True).start()
        yield server.getsockname()[1]


def refused(tmp_path, *given):
    began = time.monotonic()
    done = bench("run", "--model", "exact-gaussian", *given, "--results", tmp_path / "results")
    assert time.monotonic() - began < 60  # most of it is the start of Python on a busy machine
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list((tmp_path / "results").rglob("*.json"))
    return done.returncode, done.stderr.strip()


def test_an_address_where_no_ray_answers_is_a_sentence(tmp_path, stranger):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    for port, reason in (
        (free, f"no Ray answers at 127.0.0.1:{free} (Connection refused)"),
        (stranger, f"what answers at 127.0.0.1:{stranger} is not Ray"),
    ):
        status, told = refused(tmp_path, "--executor", "ray", "--address", f"127.0.0.1:{port}")
        assert status == 1
        assert told.startswith(f"error: {reason}; `ray start --head` prints")


WHAT_GPUS = "--gpus-per-worker takes a fraction of a GPU as in 0.25, or a whole number of them, got "


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"gpus_per_worker": "0"}, WHAT_GPUS + "0"),
        ({"gpus_per_worker": "-1"}, WHAT_GPUS + "-1"),
        ({"gpus_per_worker": "1.5"}, WHAT_GPUS + "1.5"),
        ({"gpus_per_worker": "half"}, WHAT_GPUS + "half"),
        ({"gpus_per_worker": "inf"}, WHAT_GPUS + "inf"),
        ({"address": "somewhere"}, "--address takes HOST:PORT, ray://HOST:PORT or auto, got somewhere"),
        ({"speed": "9"}, "executor 'ray' takes address and gpus_per_worker, got speed"),
    ],
)
def test_options_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(UsageError) as told:
        Ray().with_options(options)
    assert str(told.value) == sentence


def test_without_ray_the_user_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr("bench.sweep.executors.ray.find_spec", lambda name: None)
    with pytest.raises(UsageError) as told:
        Ray().with_options({})
    assert str(told.value) == "--executor ray needs Ray: pip install 'sampler-bench[ray]'"


@pytest.mark.parametrize("reached", [True, False])
def test_termination_is_handled_as_before_ray_whether_it_is_reached_or_not(monkeypatch, reached):
    """Ray's own handler exits wherever the program is, and so would every fork after it."""

    def init(**options):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
        if not reached:
            raise RuntimeError("no room")

    fake = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", fake)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with (
            contextlib.nullcontext() if reached else pytest.raises(BenchError, match="no room"),
            _connected("auto"),
        ):
            assert signal.getsignal(signal.SIGTERM) is before
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, before)
