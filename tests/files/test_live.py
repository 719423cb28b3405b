"""Code and values that live in memory alone: equal where they are, different where anything differs."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from bench import NoiseSchedule
from bench.files.live import is_live, values_hash
from bench.files.source import code_hash


def defined(source, name="f"):
    """What a text defines, as a cell of a notebook would: without a file."""
    space = {}
    exec(source, space)
    return space[name]


CELL = """
import numpy as np
import bench
SCALE = {scale}

def helper(x):
    return {helper}

class Base:
    factor = {factor}

class Net(Base):
    def __call__(self, x):
        # {comment}
        return helper(x) * SCALE * {method}

def f(x, *, strength=0.5):
    return Net()(x) * np.pi{unused}
"""

SAME = {"scale": 2, "helper": "x + 1", "factor": 1, "comment": "", "method": "3", "unused": ""}


def cell(**changed):
    return defined(CELL.format(**{**SAME, **changed}))


@pytest.mark.parametrize(
    "changed",
    [{"scale": 3}, {"helper": "x + 2"}, {"factor": 2}, {"method": "4"}, {"unused": " + 0"}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_change_anywhere_in_what_a_function_uses_is_another_function(changed):
    assert is_live(cell())
    assert code_hash(cell()) == code_hash(cell())
    assert code_hash(cell(**changed)) != code_hash(cell())


def test_comments_and_places_count_for_nothing():
    assert code_hash(cell(comment="said otherwise")) == code_hash(cell())
    assert code_hash(defined("\n\n\ndef f(x):\n    return x")) == code_hash(defined("def f(x): return x"))


def test_a_global_of_the_name_of_an_attribute_is_not_meant():
    source = "shape = {}\ndef f(x):\n    return x.shape"
    assert code_hash(defined(source.format(1))) == code_hash(defined(source.format(2)))


def test_what_the_projects_code_is_counts_by_the_name_it_is_used_by():
    """`bench.sample` is one definition, not the whole of the project."""
    one, other = (
        defined(f"import bench\ndef f(x):\n    return bench.{name}") for name in ("sample", "diffuse")
    )
    assert code_hash(one) != code_hash(other)


def test_another_process_finds_the_same_hash(tmp_path):
    script = tmp_path / "cell.py"
    script.write_text(
        "from bench.files.source import code_hash\n" + CELL.format(**SAME) + "\nprint(code_hash(f))\n"
    )
    told = [
        subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    assert told[0] == told[1]
    assert len(told[0]) == 16


class Held:
    def __init__(self, **values):
        vars(self).update(values)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (2.0, 2.5),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": 2}),
        (torch.zeros(3), torch.tensor([0.0, 0.0, 1e-30])),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (np.zeros(3), np.zeros(3, dtype=np.float32)),
        (torch.nn.Dropout(0.1), torch.nn.Dropout(0.2)),
        (torch.nn.GroupNorm(1, 4), torch.nn.GroupNorm(2, 4)),
        (torch.float32, torch.float64),
        (NoiseSchedule.linear(), NoiseSchedule.cosine()),
    ],
    ids=repr,
)
def test_objects_that_hold_something_else_are_others(one, other):
    assert values_hash(Held(x=one)) != values_hash(Held(x=other))
    assert values_hash(Held(x=one)) == values_hash(Held(x=one))


def test_closed_over_numbers_count():
    def make(scale):
        return lambda x: scale * x

    assert values_hash(make(2)) != values_hash(make(3))
    assert values_hash(make(2)) == values_hash(make(2))


def test_what_is_kept_to_save_computing_and_the_mode_of_a_network_count_for_nothing():
    schedule = NoiseSchedule.linear()
    network = Held(schedule=schedule, layer=torch.nn.Linear(2, 2))
    before = values_hash(network)
    schedule.alpha_bar(3)
    network.layer.eval()
    network.layer.weight.requires_grad_(False)
    assert values_hash(network) == before
    with torch.no_grad():
        network.layer.weight[0, 0] += 1
    assert values_hash(network) != before


def test_an_object_that_holds_itself_has_an_end():
    one, other = Held(x=1), Held(x=2)
    one.me, other.me = one, other
    assert values_hash(one) != values_hash(other)
