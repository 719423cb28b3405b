"""Code and values that live in memory alone: equal where they are, different where anything differs."""

import os
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from bench import NoiseSchedule
from bench.files.live import is_live, values_hash
from bench.files.source import code_hash, walk
from bench.plugins.lookup import weights_hash


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


FILE = """
SCALE, SHIFT = 1.0, [0.0]


def factory(scale):
    class Inner:
        def __call__(self, x):
            return scale * x

    return Inner()


def helper(x):
    return x + SHIFT[0]


class Base:
    factor = 1.0


class Net(Base):
    @property
    def twice(self):
        return 2 * SCALE

    def __call__(self, x):
        return helper(x) * self.factor * self.twice
"""


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """A module of a user's file, imported as any other."""
    (tmp_path / "my_net.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("my_net")
    del sys.modules["my_net"]


@pytest.mark.parametrize(
    "change",
    [
        lambda my: setattr(my, "SCALE", 1.5),
        lambda my: my.SHIFT.append(1.0),
        lambda my: setattr(my.Base, "factor", 1.5),
        lambda my: setattr(my.Net, "__call__", lambda self, x: x),
        lambda my: setattr(my, "helper", lambda x: x),
    ],
    ids=["global", "global of a helper", "attribute of a base", "method", "function"],
)
def test_what_a_program_changes_of_an_imported_file_counts(imported, change):
    """The file is the same, so that its code tells nothing."""
    model = imported.Net()
    before = values_hash(model)
    assert values_hash(model) == before == values_hash(imported.Net())
    change(imported)
    assert values_hash(model) != before


def test_classes_that_a_function_of_a_file_makes_are_told_apart_by_what_they_close_over(imported):
    assert values_hash(imported.factory(1.0)) == values_hash(imported.factory(1.0))
    assert values_hash(imported.factory(1.0)) != values_hash(imported.factory(1.5))


@dataclass(slots=True)
class Slotted:
    x: object
    __hidden: int = 0


class List(list): ...


class Number(float): ...


class Points(torch.Tensor): ...


def with_attribute(made, value):
    made.scale = value
    return made


@pytest.mark.parametrize(
    "make",
    [
        lambda value: Slotted(value),
        lambda value: Slotted(1, value),
        lambda value: deque([lambda: value]),
        lambda value: with_attribute(List(), value),
        lambda value: with_attribute(Number(1), value),
        lambda value: with_attribute(torch.ones(2).as_subclass(Points), value),
        lambda value: hooked(torch.nn.Linear(1, 1, bias=False), value),
    ],
    ids=["slot", "hidden slot", "deque", "list", "float", "tensor", "hook"],
)
def test_wherever_a_value_is_kept_it_counts(make):
    torch.manual_seed(0)
    one = Held(x=make(2))
    torch.manual_seed(0)
    other = Held(x=make(3))
    assert values_hash(one) == values_hash(one) != values_hash(other)


def hooked(layer, factor):
    """A layer with a hook, after another one was taken away: hooks have numbers, which do not count."""
    layer.register_forward_hook(lambda *_: None).remove()
    layer.register_forward_hook(lambda module, given, out: factor * out)
    return layer


def test_a_hook_is_code_of_the_layer_it_hangs_on():
    layer = torch.nn.Sequential(torch.nn.Linear(1, 1))
    before = code_hash(layer)
    handle = layer[0].register_forward_hook(lambda module, given, out: 2 * out)
    assert code_hash(layer) != before
    handle.remove()
    assert code_hash(layer) == before


class Kind(Enum):
    ONE, TWO, THREE = "one", "two", "three"


def test_paths_and_sets_are_the_same_however_they_were_used(tmp_path):
    path = Path(*tmp_path.parts)
    held = Held(x=path)
    before = values_hash(held)
    assert str(path) and hash(path)
    assert values_hash(held) == before
    several = ("one", "two", "three")
    forwards, backwards = ({Kind(name) for name in names} for names in (several, several[::-1]))
    assert values_hash(Held(x=forwards)) == values_hash(Held(x=backwards))


def test_a_set_of_objects_is_the_same_in_another_process(tmp_path):
    script = tmp_path / "cell.py"
    script.write_text(
        "from enum import Enum\nfrom bench.files.live import values_hash\n"
        "Kind = Enum('Kind', 'a b c d e')\nprint(values_hash(set(Kind)))\n"
    )
    seeds = ({**os.environ, "PYTHONHASHSEED": seed} for seed in "123")
    asked = [sys.executable, str(script)]
    told = {subprocess.run(asked, capture_output=True, check=True, env=seed).stdout for seed in seeds}
    assert len(told) == 1


def test_what_a_function_imports_as_it_runs_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "my_helper.py"
    function = defined("def f(x):\n    from my_helper import scale\n    return scale() * x")
    file.write_text("def scale():\n    return 1.0\n")
    before = code_hash(function)
    assert code_hash(function) == before
    file.write_text("def scale():\n    return 0.5\n")
    assert code_hash(function) != before


def test_networks_are_found_wherever_a_users_code_has_them(imported):
    """In a slot, in a global that a function names, in an attribute of its class."""
    named, of_class, slotted = (torch.nn.Linear(1, 1) for _ in range(3))
    imported.SHIFT, imported.Base.factor = [named], of_class
    found = list(walk([Slotted(slotted), imported.Net()]))
    assert all(any(one is network for one in found) for network in (named, of_class, slotted))
    assert not any(isinstance(one, ModuleType) for one in found)


def test_tensors_and_arrays_beside_the_weights_of_a_users_network_are_weights_too(imported):
    helper = imported.helper

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.schedule, self.table, self.array = NoiseSchedule.linear(), torch.ones(2), np.ones(2)

        def forward(self, x):
            return helper(x) * self.table

    imported.SHIFT = torch.zeros(1)
    model = Net()
    for change in (lambda: model.table.mul_(2), lambda: model.array.fill(3), lambda: imported.SHIFT.add_(1)):
        before = weights_hash(model)
        assert weights_hash(model) == before
        change()
        assert weights_hash(model) != before
