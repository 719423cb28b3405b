"""The cost of a sweep on many GPUs: the formula of docs/scale.md held to a simulation block by block."""

import random

import pytest
from support.scaling import TABLE, blocks, measured, predicted, simulated, table


@pytest.mark.parametrize("workers", [1, 2, 8, 64])
@pytest.mark.parametrize("overhead", [0.0, 0.3])
def test_the_formula_holds_for_the_table_of_the_ddim_paper(workers, overhead):
    every = blocks(measured())
    least, most = predicted(every, workers, overhead)
    assert least <= simulated(every, workers, overhead) * (1 + 1e-12)
    assert simulated(every, workers, overhead) <= most * (1 + 1e-12)


def test_with_64_workers_the_shared_work_is_most_of_the_time():
    every = blocks(measured())
    assert simulated(every, 64) == pytest.approx(sum(every) / 64, rel=0.12)


def test_few_blocks_leave_workers_waiting():
    assert simulated([5.0] * 65, 64) == 10.0
    assert simulated([1.0, 1.0, 10.0], 2) == 11.0  # the longest last
    assert simulated([10.0, 1.0, 1.0], 2) == 10.0


def test_the_formula_holds_for_any_blocks():
    draw = random.Random(0)
    for _ in range(200):
        seconds = [draw.expovariate(1.0) for _ in range(draw.randint(1, 100))]
        workers, overhead = draw.randint(1, 70), draw.random()
        least, most = predicted(seconds, workers, overhead)
        assert least <= simulated(seconds, workers, overhead) * (1 + 1e-12)
        assert simulated(seconds, workers, overhead) <= most * (1 + 1e-12)


def test_the_document_has_the_table():
    assert TABLE.written() == table()
