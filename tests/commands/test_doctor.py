"""``doctor``: every thing that is looked for, in each of its states, and what it costs the exit status."""

import importlib.metadata
import json
import shlex
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from bench.commands import doctor
from bench.commands.main import main
from bench.commands.parser import command_parser
from bench.metrics.weights import INCEPTION
from bench.plugins.loading import PluginFailure, registry

METADATA = """Metadata-Version: 2.4
Name: sampler-bench
Version: 9.8.7
Requires-Dist: torch>=2
Requires-Dist: numpy>=9999
Requires-Dist: no-such-package-of-ours>=1.5
Requires-Dist: not-for-this-machine; sys_platform == "nowhere"
Provides-Extra: frames
Requires-Dist: pandas>=2; extra == "frames"
Provides-Extra: parquet
Requires-Dist: no-such-reader>=15; extra == "parquet"
Requires-Dist: pandas>=2; extra == "parquet"
"""


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    """Nothing of the machine's own: no variables, no weights, no images."""
    for name in ("SAMPLER_BENCH_INCEPTION", "SAMPLER_BENCH_INCEPTION_SHA256", "SAMPLER_BENCH_CLIP_SCORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SAMPLER_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SAMPLER_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.fixture
def no_scores(monkeypatch):
    """Leave the feature spaces out: making them takes seconds."""
    monkeypatch.setattr(doctor, "_scores", lambda: [])


def found(capsys, part, *options):
    """(exit status, {name: finding} of a part)."""
    status = main(["doctor", "--json", *options])
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] == (status == 0)
    return status, {one["name"]: one for one in told["findings"] if one["part"] == part}


def test_packages_are_told_with_what_is_wrong_and_what_mends_it(monkeypatch, tmp_path, capsys, no_scores):
    folder = tmp_path / "site" / "sampler_bench-9.8.7.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(METADATA)
    monkeypatch.syspath_prepend(str(folder.parent))
    status, packages = found(capsys, "packages")
    assert status == 1
    assert list(packages) == ["python", "sampler-bench", "torch", "numpy", "no-such-package-of-ours"]
    assert packages["sampler-bench"]["told"].startswith("9.8.7 in ")
    there = packages["torch"]
    assert (there["state"], there["fault"], there["command"]) == ("ok", "", "")
    assert there["told"] == importlib.metadata.version("torch")
    assert packages["numpy"]["state"] == "broken"
    assert packages["numpy"]["fault"].endswith("is not >=9999")
    assert packages["numpy"]["command"] == "pip install 'numpy>=9999'"
    lacking = packages["no-such-package-of-ours"]
    assert (lacking["state"], lacking["fault"]) == ("broken", "is not installed")
    assert lacking["command"] == "pip install 'no-such-package-of-ours>=1.5'"
    _, extras = found(capsys, "extras")
    assert (extras["frames"]["state"], extras["frames"]["command"]) == ("ok", "")
    assert extras["parquet"]["state"] == "missing"  # which is no fault
    assert extras["parquet"]["fault"] == "no-such-reader is not installed"
    assert extras["parquet"]["told"].startswith("pandas ")
    assert extras["parquet"]["command"] == "pip install 'sampler-bench[parquet]'"


def test_devices_are_told_with_why_there_is_no_gpu(monkeypatch, capsys, no_scores):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    status, devices = found(capsys, "devices")
    assert (status, devices["cpu"]["state"], devices["cuda"]["state"]) == (0, "ok", "missing")
    assert devices["cuda"]["fault"] == "none found, torch is built for 12.4"
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    assert found(capsys, "devices")[1]["cuda"]["fault"] == "torch is built without it"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    card = SimpleNamespace(name="Some Card", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    _, devices = found(capsys, "devices")
    assert {name: one["told"] for name, one in devices.items() if name != "cpu"} == {
        "cuda:0": "Some Card, 80 GiB",
        "cuda:1": "Some Card, 80 GiB",
    }


def test_folders_are_told_with_their_size_and_tried(monkeypatch, tmp_path, capsys, no_scores):
    cache = tmp_path / "cache"
    status, folders = found(capsys, "folders")
    assert (status, folders["statistics and weights"]["state"]) == (0, "ok")
    assert folders["statistics and weights"]["told"] == f"{cache}, not there yet"
    (cache / "weights").mkdir(parents=True)
    (cache / "a").write_bytes(bytes(2**20))
    (cache / "weights" / "b").write_bytes(bytes(2**19))
    _, folders = found(capsys, "folders")
    assert folders["statistics and weights"]["told"] == f"{cache}, 2 files, 1.5 MiB"
    assert {path.name for path in cache.iterdir()} == {"a", "weights"}  # the try has left nothing
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAMPLER_BENCH_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "file" / "hub"))
    status, folders = found(capsys, "folders")
    assert (status, folders["statistics and weights"]["state"]) == (1, "broken")
    assert folders["statistics and weights"]["fault"].startswith("cannot be written: ")
    assert folders["statistics and weights"]["command"] == "export SAMPLER_BENCH_CACHE=FOLDER"
    assert folders["torch.hub"]["state"] == "ok"  # it is only read


def test_image_sets_are_there_missing_or_broken(tmp_path, capsys, no_scores):
    status, data = found(capsys, "data")
    assert (status, {one["state"] for one in data.values()}) == (0, {"missing"})
    assert data["cifar10"]["command"] == "sampler-bench fetch cifar10"
    assert data["cifar10"]["fault"] == f"not in {tmp_path / 'data'}; SAMPLER_BENCH_DATA names another folder"
    assert data["celeba64"]["command"] == ""  # nobody may hand it on
    (tmp_path / "data" / "cifar-10-batches-py").mkdir(parents=True)
    images = tmp_path / "data" / "celeba" / "img_align_celeba"
    images.mkdir(parents=True)
    (images / "000001.jpg").write_bytes(b"")
    status, data = found(capsys, "data")
    assert (status, {one["state"] for one in data.values()}) == (0, {"ok"})
    (images.parent / "list_eval_partition.txt").write_text("999999.jpg 0\n")
    status, data = found(capsys, "data")
    assert (status, data["celeba64"]["state"], data["cifar10"]["state"]) == (1, "broken", "ok")
    assert "names none of the images" in data["celeba64"]["fault"]


def test_every_score_is_told_once_with_what_it_lacks(capsys):
    status, scores = found(capsys, "scores")
    assert status == 0
    names = Counter(name for one in scores.values() for name in one["told"].split(", "))
    assert names == Counter(metric.name for metric in registry().metrics.values())
    for own in ("digits", "pixels", "random", "pooled"):
        assert scores[own]["state"] == "ok"
    assert scores["inception_2048"]["state"] == "missing"
    assert scores["inception_2048"]["command"] == "sampler-bench fetch inception"
    assert "95,628,359 bytes" in scores["inception_2048"]["fault"]
    assert scores["clip_prompts"]["state"] == "missing"
    assert "SAMPLER_BENCH_CLIP_SCORE" in scores["clip_prompts"]["fault"]
    for one in scores.values():
        assert (one["fault"] == "") == (one["state"] == "ok")
        program, *arguments = shlex.split(one["command"]) or ["nothing"]
        if program == "sampler-bench":
            command_parser(arguments[0]).parse_args(arguments[1:])
        else:
            assert program in ("pip", "nothing")


@pytest.mark.parametrize("by", ["place", "variable"])
def test_weights_that_are_not_what_they_should_be_are_broken(by, tmp_path, monkeypatch, capsys):
    place = tmp_path / "hub" / "checkpoints" / INCEPTION.name
    place.parent.mkdir(parents=True)
    if by == "place":
        place.write_bytes(b"half")
    else:
        monkeypatch.setenv("SAMPLER_BENCH_INCEPTION", str(place))
    monkeypatch.setattr(registry().metrics, "entries", {"fid": registry().metrics.get("fid")})
    status, scores = found(capsys, "scores")
    assert (status, scores["inception_2048"]["state"]) == (1, "broken")
    main(["doctor"])
    shown = capsys.readouterr().out
    assert ("is truncated" if by == "place" else "in SAMPLER_BENCH_INCEPTION") in " ".join(shown.split())


def test_a_space_that_raises_is_broken_and_ends_nothing(monkeypatch, capsys):
    def make(name, shape):
        raise SystemExit(3)

    monkeypatch.setattr(doctor, "get_space", make)
    status, scores = found(capsys, "scores")
    assert status == 1
    assert {one["state"] for one in scores.values()} == {"broken"}
    assert scores["digits"]["fault"] == "it called sys.exit(3)"


def test_plugins_that_failed_are_broken(monkeypatch, capsys, no_scores):
    failure = PluginFailure("heun-for-sampler-bench", "1.2.3", "import", "ImportError: no numba")
    monkeypatch.setattr(registry(), "failures", [failure])
    status, plugins = found(capsys, "plugins")
    assert status == 1
    assert plugins["heun-for-sampler-bench"]["fault"] == "failed at import: ImportError: no numba"


def test_what_is_read_has_a_sign_for_each_state_and_a_count(monkeypatch, capsys):
    given = [
        ("pixels", "ok", "fd_pixels"),
        ("clip", "missing", "cmmd", "weights are missing", "sampler-bench fetch clip"),
        ("mine", "broken", "fd_mine", "RuntimeError: no light"),
    ]
    for name in ("_packages", "_devices", "_folders", "_data", "_plugins"):
        monkeypatch.setattr(doctor, name, lambda: [])
    monkeypatch.setattr(doctor, "_scores", lambda: [doctor.Finding("scores", *one) for one in given])
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["doctor"]) == 1
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "scores",
        " ok  pixels  fd_pixels",
        " --  clip    cmmd",
        "             $ sampler-bench fetch clip",
        " !!  mine    fd_mine",
        "             RuntimeError: no light",
        "1 broken, 1 not here",
    ]
    main(["doctor", "-v"])
    assert "weights are missing" in capsys.readouterr().out
