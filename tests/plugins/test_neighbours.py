"""A user's files import what lies beside them, whatever it is called."""

import importlib
import sys

import numpy as np
import pytest
from support.commands import bench as run_bench

from bench.errors import sentence_of
from bench.files.source import code_hash
from bench.plugins.loading import Registry, import_file
from bench.plugins.lookup import load_model

NET = """
import torch


class Net(torch.nn.Module):
    def forward(self, x, t):
        return 0.5 * x
"""

MODEL = """
import bench
from {where} import Net


def make():
    from {where} import Net as again  # at a call, too
    assert again is Net
    return bench.from_prediction(Net(), bench.NoiseSchedule.linear(), (1, 4, 4), "eps")
"""

SAMPLER = """
from helper import beside
import bench


@bench.hookimpl
def bench_samplers():
    return [beside]
"""

HELPER = """
import bench


@bench.sampler(source="a test")
def beside(model, x, grid, noise):
    for step in grid:
        x, _ = bench.predict_x0(x, model(x, step.times(x)), step.alpha_bar)
        yield x
"""


def reference(folder):
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images)
    return folder / "images.npz"


def test_files_and_packages_beside_a_model_are_found(tmp_path):
    for where in ("unet", "models.unet_of_mine", "samplers.thing", "package.deep"):
        folder = tmp_path / where
        target = folder / f"{where.replace('.', '/')}.py"
        target.parent.mkdir(parents=True)
        target.write_text(NET)
        (folder / "mine.py").write_text(MODEL.format(where=where))
        done = run_bench(
            *("run", "--model", folder / "mine.py:make", "--reference", reference(folder), "--n", "8"),
            *("--samplers", "ddim", "--steps", "2", "--results", folder / "results"),
        )
        assert done.returncode == 0, (where, done.stderr)


def test_a_plugin_file_finds_its_helper(tmp_path):
    (tmp_path / "mine.py").write_text(SAMPLER)
    (tmp_path / "helper.py").write_text(HELPER)
    done = run_bench("list", "samplers", "--plugin", tmp_path / "mine.py")
    assert done.returncode == 0, done.stderr
    assert "beside" in done.stdout


def test_a_plugin_that_exits_while_it_is_imported_is_a_failed_plugin(tmp_path):
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(0)\n")
    done = run_bench("list", "samplers", "--plugin", tmp_path / "ends.py")
    assert done.returncode == 1
    assert "ends.py failed at import: it called sys.exit(0)" in done.stderr
    assert "ddim" in done.stdout


def test_what_is_no_plugin_is_told(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    done = run_bench("list", "samplers", "--plugin", tmp_path / "empty.py")
    assert done.returncode == 1
    assert "offers nothing" in done.stderr
    done = run_bench("list", "samplers", "--plugin", tmp_path)
    assert done.returncode == 2
    assert "is a folder" in done.stderr


def write(folder, **files):
    """Write files by their paths, without endings, and return the folder."""
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_files_of_two_folders_have_helpers_of_one_name(tmp_path):
    text = (
        "import helper\nfrom helper import VALUE\n\ndef late():\n    import helper\n    return helper.VALUE\n"
    )
    values = {}
    for name in ("one", "two"):
        folder = write(tmp_path / name, mine=text, helper=f"VALUE = {name!r}\n")
        values[name] = import_file(folder / "mine.py")
    for name, module in values.items():
        assert (module.VALUE, module.helper.VALUE, module.late()) == (name, name, name)
    assert values["one"].helper is not values["two"].helper


def test_packages_of_one_name_and_their_relative_imports_stay_apart(tmp_path):
    text = "import thing.deep.below\nfrom thing import deep\nVALUE = deep.VALUE, thing.deep.below.VALUE\n"
    for name in ("one", "two"):
        folder = write(
            tmp_path / name,
            mine=text,
            beside="",
            **{
                "thing/__init__": "",
                "thing/deep/__init__": "from .below import VALUE\nfrom . import below\nimport beside\n",
                "thing/deep/below": "from ..other import VALUE\n",
                "thing/other": f"VALUE = {name!r}\n",
            },
        )
        assert (name, name) == import_file(folder / "mine.py").VALUE


def test_own_packages_of_a_users_come_before_the_projects_in_his_files(tmp_path):
    folder = write(
        tmp_path,
        mine="from models.unet import UNet\nfrom models import layers\nimport models\nimport models.exact\n",
        other="from samplers import Net\nfrom models import load_checkpoint\n",
        **{"models/unet": "UNet = 'mine'\n", "samplers/__init__": "Net = 'mine too'\n"},
    )
    made = import_file(folder / "mine.py")
    assert made.UNet == "mine"
    assert made.layers is importlib.import_module("models.layers")
    assert made.models.exact is importlib.import_module("models.exact")
    assert importlib.import_module("models.unet").UNet != "mine"
    other = import_file(folder / "other.py")
    assert other.Net == "mine too"
    assert other.load_checkpoint is importlib.import_module("models").load_checkpoint


def test_nothing_beside_a_file_hides_what_is_installed(tmp_path):
    wrong = "raise AssertionError('imported')\n"
    folder = write(tmp_path, mine="import torch, json, bench\n", torch=wrong, json=wrong, bench=wrong)
    made = import_file(folder / "mine.py")
    assert made.torch is sys.modules["torch"]
    assert made.json is sys.modules["json"]


def test_a_module_is_one_however_it_is_imported(tmp_path):
    """Pickles and importlib ask for it by the name of its file."""
    text = "import importlib\nimport neighbour_once\nagain = importlib.import_module('neighbour_once')\n"
    made = import_file(write(tmp_path, mine=text, neighbour_once="class Net: pass\n") / "mine.py")
    assert made.again is made.neighbour_once


def test_messages_call_modules_what_their_files_are(tmp_path):
    with pytest.raises(ImportError) as raised:
        import_file(write(tmp_path, mine="from lesser import Net\n", lesser="") / "mine.py")
    assert "cannot import name 'Net' from 'lesser'" in sentence_of(raised.value)


CHANGES = {
    "mine": ("from helper import late\n", "X = 1\nfrom helper import late\n"),
    "helper": (
        "import deep\ndef late(x, t):\n    return x\n",
        "import deep\ndef late(x, t):\n    return 2 * x\n",
    ),
    "deep": ("VALUE = 1\n", "VALUE = 2\n"),
    "inside/there": ("VALUE = 1\n", "VALUE = 2\n"),
    "models/net": ("VALUE = 1\n", "VALUE = 2\n"),
}
FACTORY = """
def make():
    import bench
    from inside import there
    from models.net import VALUE
    return bench.from_prediction(late, bench.NoiseSchedule.linear(), (1, 4, 4), "eps")
"""


@pytest.mark.parametrize("changed", [None, *CHANGES])
def test_a_change_of_any_file_that_makes_a_model_changes_its_code_hash(tmp_path, changed):
    def hash_in(folder, changed):
        texts = {name: new if name == changed else old for name, (old, new) in CHANGES.items()}
        write(folder, **texts, unused=f"VALUE = {changed!r}\n")
        with (folder / "mine.py").open("a") as file:
            file.write(FACTORY)
        return code_hash(*load_model(f"{folder / 'mine.py'}:make").code)

    before, after = hash_in(tmp_path / "a", None), hash_in(tmp_path / "b", changed)
    assert (before == after) is (changed is None)


@pytest.mark.parametrize(("constant", "same"), [("1", True), ("2", False)])
def test_a_change_beside_a_plugin_changes_the_code_hash_of_its_sampler(tmp_path, constant, same):
    def hash_in(folder, constant):
        write(folder, mine=f"from helper import VALUE\n{HELPER}", helper=f"VALUE = {constant}\n")
        return code_hash(import_file(folder / "mine.py").beside.function)

    assert (hash_in(tmp_path / "a", "1") == hash_in(tmp_path / "b", constant)) is same


def test_what_lies_beside_a_linked_file_counts(tmp_path):
    def hash_in(folder, value):
        write(folder, mine=f"from helper import VALUE\n{HELPER}", helper=f"VALUE = {value}\n")
        (folder / "link").mkdir()
        (folder / "link" / "mine.py").symlink_to(folder / "mine.py")
        return code_hash(import_file(folder / "link" / "mine.py").beside.function)

    assert hash_in(tmp_path / "a", 1) != hash_in(tmp_path / "b", 2)


def test_model_and_plugin_have_helpers_of_one_name_in_workers_too(tmp_path):
    model = write(tmp_path / "a", mine=MODEL.format(where="helper"), helper=NET)
    plugin = write(tmp_path / "b", mine=SAMPLER, helper=HELPER)
    done = run_bench(
        *("run", "--model", model / "mine.py:make", "--plugin", plugin / "mine.py", "--samplers", "beside"),
        *("--reference", reference(tmp_path), "--n", "8", "--steps", "2", "--executor", "processes"),
        *("--results", tmp_path / "results"),
    )
    assert done.returncode == 0, done.stderr


def test_a_changed_helper_makes_a_record_stale(tmp_path):
    write(tmp_path, mine=MODEL.format(where="unet"), unet=NET)
    command = [
        *("run", "--model", tmp_path / "mine.py:make", "--reference", reference(tmp_path), "--n", "8"),
        *("--samplers", "ddim", "--steps", "2", "--results", tmp_path / "results"),
    ]
    assert run_bench(*command).returncode == 0
    assert "1 of 1 trials are there already" in run_bench(*command).stderr
    write(tmp_path, unet=NET.replace("0.5 * x", "0.6 * x"))
    assert "code of the model changed since" in run_bench(*command).stderr


RAISED = {
    "raise GeneratorExit": "GeneratorExit",
    "class Mine(BaseException): pass\nraise Mine('of mine')": "Mine: of mine",
    "raise ValueError('one\\n  two')": "ValueError: one two",
    "import asyncio\nraise asyncio.CancelledError": "CancelledError",
    "import sys\nsys.exit('no licence')": "it called sys.exit('no licence')",
}


@pytest.mark.parametrize("code", RAISED)
@pytest.mark.parametrize("hook", [False, True])
def test_whatever_a_plugin_raises_is_its_failure_in_a_line(tmp_path, code, hook):
    lines = code.replace("\n", "\n    ")
    text = f"import bench\n@bench.hookimpl\ndef bench_samplers():\n    {lines}\n" if hook else code
    registry = Registry()
    registry.load_file(write(tmp_path, mine=text) / "mine.py")
    (failure,) = registry.failures
    assert failure.message == RAISED[code]
    assert failure.stage == ("bench_samplers" if hook else "import")


def test_an_interrupt_is_the_users_own(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Registry().load_file(write(tmp_path, mine="raise KeyboardInterrupt\n") / "mine.py")
