"""Blocks drawn on a Ray cluster: driver or node killed, the records are those of one process."""

import os
from functools import partial

import pytest
from support.clusters import drawn, is_alive, plugin_folder, records, start, sweep, two_nodes, until
from support.commands import bench

pytest.importorskip("ray", reason="Ray is not installed: pip install 'sampler-bench[ray]'")

N, BATCH = 100, 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return plugin_folder(tmp_path_factory, "ray")


command = partial(sweep, n=N, batch=BATCH)


def kept(folder):
    return list((folder / "results").rglob("*.npz"))


@pytest.fixture(scope="module")
def told(folder):
    """What happened: the driver is killed, the same command goes on, a node is killed, it ends."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with two_nodes() as cluster:
        asked = (*command(folder, "results"), "--executor", "ray", "--address", cluster.address)
        held = folder / "held"  # until both workers draw: the sooner one would have drawn it all
        held.touch()
        first = start(*asked)
        until(lambda: len({two for *_, two in drawn(folder, "slow")}) == 2)
        held.unlink()
        until(lambda: len(kept(folder)) > 1)
        held.touch()
        first.kill()
        first.wait()
        before = drawn(folder, "slow")
        until(lambda: not any(is_alive(one) for _, *both in before for one in both))
        there = len(kept(folder))
        second = start(*asked)
        until(lambda: len({two for *_, two in drawn(folder, "slow")[len(before) :]}) == 2)
        cluster.remove_node(cluster.second, allow_graceful=False)
        held.unlink()
        _, errors = second.communicate(timeout=120)
    return {
        "status": second.returncode,
        "errors": errors,
        "there": there,
        "before": before,
        "after": drawn(folder, "slow"),
    }


def test_the_driver_and_a_node_are_killed_and_the_sweep_ends(told):
    assert told["status"] == 0, told["errors"]


def test_the_records_are_those_of_one_process(told, folder):
    assert bench(*command(folder, "alone"), "--executor", "serial", SAMPLER_BENCH_PAUSE="0").returncode == 0
    ours, alone = records(folder / "results")["slow"], records(folder / "alone")["slow"]
    assert ours["images"] == alone["images"]
    assert ours["scores"] == alone["scores"]
    assert ours["environment"]["device_name"] == alone["environment"]["device_name"]


def test_only_what_was_lost_is_drawn_again(told):
    """At most a block a worker with the driver, and the one of the node."""
    blocks = N // BATCH
    assert len({total for total, *_ in told["after"]}) == blocks
    assert told["there"] > 1
    assert blocks < len(told["after"]) <= blocks + 3
    assert len(told["after"]) <= len(told["before"]) + blocks - told["there"] + 1


def test_the_model_is_loaded_once_a_worker(told):
    """Both workers of the second run, and of one node one more at most, drew all their blocks."""
    second = told["after"][len(told["before"]) :]
    assert len({process for _, process, _ in second}) <= 3
