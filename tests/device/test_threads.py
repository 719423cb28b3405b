"""Threads: as many as the process may use, waiting asleep, and one for linear algebra."""

import contextlib
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from bench.commands.main import main
from bench.device.binding import _in_each, _openmp, a_core_each
from bench.device.cores import SPINS, available_cores, settle
from bench.device.threads import _pool, in_threads, one_blas_thread
from bench.metrics.frechet import FrechetReference


def blas():
    """The numbers of threads that the loaded libraries of linear algebra take."""
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def group(root, told, **files):
    """A file system whose control groups say so."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(told)
    for path, text in files.items():
        file = (
            root
            / "sys/fs/cgroup"
            / path.replace("__", "/").replace("_max", ".max").replace("cfs_", "cpu.cfs_")
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("told", "files", "cores"),
    [
        ("0::/a/b\n", {"a__b__cpu_max": "150000 100000"}, 2),  # a part of a core is one
        (
            "0::/a/b\n",
            {"a__cpu_max": "100000 100000", "a__b__cpu_max": "max 100000"},
            1,
        ),  # of a group around it
        ("0::/\n", {"cpu_max": "25000 100000"}, 1),
        (
            "4:cpu,cpuacct:/a\n1:memory:/\n",
            {"cpu__a__cfs_quota_us": "100000", "cpu__a__cfs_period_us": "100000"},
            1,
        ),
    ],
)
def test_a_control_group_s_share_is_kept_to(tmp_path, monkeypatch, told, files, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda who: set(range(8)), raising=False)
    assert available_cores(group(tmp_path, told, **files)) == cores


@pytest.mark.parametrize("told", ["0::/\n", "0::/gone\n", "4:cpu:/\n", ""])
def test_no_limit_is_the_cores_that_the_process_is_bound_to(tmp_path, monkeypatch, told):
    monkeypatch.setattr(os, "sched_getaffinity", lambda who: {1, 3, 5}, raising=False)
    assert available_cores(group(tmp_path, told, cpu_max="max 100000", cpu__cfs_quota_us="-1")) == 3
    assert available_cores(tmp_path / "nothing") == 3


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setattr("bench.device.cores.available_cores", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    mine = {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE"}
    settle(environment=mine)
    assert mine["OMP_NUM_THREADS"] == "3"
    assert mine["OPENBLAS_NUM_THREADS"] == "1"
    assert "GOMP_SPINCOUNT" not in mine
    empty = {}
    settle(environment=empty)
    assert empty == {**dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
                     "GOMP_SPINCOUNT": SPINS}  # fmt: skip


def test_threads_are_those_that_are_asked_for(tmp_path):
    asked = ["run", "--threads", "3", "--dry-run", "--samplers", "ddim", "--steps", "2", "--n", "2"]
    code = f"import sys; from bench.commands.main import main; main({[*asked, '--results', str(tmp_path)]})"
    answer = subprocess.run(
        [sys.executable, "-c", f"{code}; print(sys.modules['torch'].get_num_threads())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.split()[-1] == "3"


@pytest.mark.parametrize("asked", ["0", "-2"])
def test_no_threads_are_refused(capsys, asked):
    assert main(["run", "--threads", asked]) == 2
    assert capsys.readouterr().err == f"error: --threads takes numbers from 1 on, got {asked}\n"


def test_linear_algebra_keeps_to_one_thread_until_the_last_has_left(two_threads):
    before, seen, entered, leave = blas(), [], threading.Event(), threading.Event()

    def stay():
        with one_blas_thread:
            entered.set()
            leave.wait(10)
            seen.append(blas())

    other = threading.Thread(target=stay)
    with one_blas_thread:
        other.start()
        entered.wait(10)
        with one_blas_thread:
            pass
    assert set(blas()) == {1}
    leave.set()
    other.join()
    assert set(seen[0]) == {1}
    assert blas() == before


def test_a_distance_is_measured_in_one_thread(monkeypatch, two_threads):
    seen = []
    cov = np.eye(3)
    monkeypatch.setattr(
        FrechetReference, "_cross_by_eigenvalues", lambda *given: (seen.append(blas()), (0.0, 0.0))[1]
    )
    FrechetReference(np.zeros(3), cov).distance(np.zeros(3), cov)
    assert set(seen[0]) == {1}


def test_answers_come_in_order_from_several_threads(two_threads):
    both = threading.Barrier(2, timeout=10)

    def work(piece):
        both.wait()  # two at once, or this would break
        return piece * piece

    assert in_threads(work, [1, 2, 3, 4]) == [1, 4, 9, 16]


def test_an_error_in_a_thread_is_raised(two_threads):
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda piece: 1 / piece, [1, 0])


CPU = torch.device("cpu")


@pytest.fixture
def as_many_as_cores():
    """As many threads as cores, and a function that tells the cores of each; pools are new."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2 or _openmp() is None:
        pytest.skip("needs two cores and torch with GNU's OpenMP")
    before = torch.get_num_threads()
    torch.set_num_threads(len(cores))
    _pool.cache_clear()

    def bound():
        told = {}
        _in_each(_openmp(), len(cores), lambda number: told.update({number: os.sched_getaffinity(0)}))
        return [told[number] for number in range(len(cores))]

    yield cores, bound
    torch.set_num_threads(before)


def test_each_of_torch_s_threads_has_a_core_within_and_all_of_them_after(as_many_as_cores):
    cores, bound = as_many_as_cores
    with contextlib.suppress(ZeroDivisionError), a_core_each(CPU):
        torch.ones(1 << 20).mul_(2)
        within = bound()
        assert sorted(within, key=min) == [{core} for core in cores]
        with a_core_each(CPU):  # as where a trial that is drawn again is measured
            assert bound() == within
        in_threads(lambda piece: os.sched_getaffinity(0), [1, 2])  # in threads that are started now
        1 / 0
    assert bound() == [set(cores)] * len(cores)
    assert in_threads(lambda piece: os.sched_getaffinity(0), [1, 2]) == [set(cores)] * 2


def test_threads_that_are_fewer_than_the_cores_or_work_for_a_gpu_are_not_bound(as_many_as_cores):
    cores, bound = as_many_as_cores
    with a_core_each(torch.device("cuda")):
        assert bound() == [set(cores)] * len(cores)
    torch.set_num_threads(len(cores) - 1)
    with a_core_each(CPU):
        assert os.sched_getaffinity(0) == set(cores)
