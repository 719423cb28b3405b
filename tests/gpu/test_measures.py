"""What waits for a GPU, tried in its small size on a CPU: parts end, are kept, and go on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import measures
import pytest
import torch
from safetensors.torch import load_file
from support.machine import Findings, Unfinished, command, covered

TESTS = Path(__file__).parents[1]
QUICK = ("noise", "overhead", "utilisation", "memory")


def kept(folder, part):
    return json.loads((folder / f"{part}.json").read_text())


def test_the_quick_parts_are_measured_once(tmp_path, capsys):
    asked = [*QUICK, "--small", "--out", str(tmp_path)]
    assert measures.main(asked) == 0
    for part in QUICK:
        assert kept(tmp_path, part)["whole"]
    assert kept(tmp_path, "noise")["found"]["largest difference from the CPU"] == 0
    assert set(kept(tmp_path, "overhead")["found"]) == {f"{spec}, batch 2" for spec in measures.SAMPLERS}
    assert all(share > 0 for share in kept(tmp_path, "utilisation")["found"].values())
    before = {part: kept(tmp_path, part) for part in QUICK}
    capsys.readouterr()
    assert measures.main(asked) == 0
    assert capsys.readouterr().out.count("done before") == len(QUICK)
    assert {part: kept(tmp_path, part) for part in QUICK} == before


def test_images_are_those_of_diffusers(tmp_path):
    pytest.importorskip("diffusers")
    from support.pipelines import Pipelines

    both = Pipelines(torch.device("cpu"), 4, small=True)
    assert both.difference(2) < 1e-5
    ratios = both.compare("ddim:eta=0", 2, turns=1)
    assert len(ratios) == 3
    assert all(ratio > 0 for ratio in ratios.values())


def test_a_part_without_diffusers_is_not_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert measures.main(["pipelines", "--small", "--out", str(tmp_path)]) == 1
    assert "pipelines: not whole, the same command goes on: diffusers cannot be imported" in (
        capsys.readouterr().out
    )
    assert not kept(tmp_path, "pipelines")["whole"]


def test_a_mode_tells_its_speed_and_what_speaks_against_it(tmp_path, capsys):
    assert measures.main(["speed", "--small", "--out", str(tmp_path)]) == 1
    found = kept(tmp_path, "speed")["found"]
    row = found["eager+channels_last float32, batch 2, random weights"]
    assert row["rate"] > 0
    assert row["answers"] < 1e-3
    assert row["refused"] == ""
    assert "needs a CUDA device" in found["cuda-graph float32, batch 2, random weights"]["refused"]
    assert "what --mode auto chooses needs trained weights" in capsys.readouterr().out


def test_a_part_goes_on_with_the_next_number(tmp_path):
    asked, path = [], tmp_path / "part.json"

    def measure(name, value):
        def ask():
            asked.append(name)
            if value is None:
                raise ValueError("the machine went away")
            return value

        return name, ask

    found = Findings(path, 100)
    assert found.get(*measure("first", 1.5)) == 1.5
    with pytest.raises(ValueError, match="went away"):
        found.get(*measure("second", None))
    again = Findings(path, 100)
    assert again.get(*measure("first", 7)) == 1.5
    assert again.get(*measure("second", {"a": 2})) == {"a": 2}
    assert asked == ["first", "second", "second"]
    assert not Findings(path, 100).whole


def test_nothing_is_begun_that_would_not_end_in_time(tmp_path):
    found = Findings(tmp_path / "part.json", 100)
    with pytest.raises(Unfinished, match="no time was left for: long"):
        found.get("long", lambda: 1, about=101)
    found._longest = 101  # as the number before took
    with pytest.raises(Unfinished, match="no time was left for: next"):
        found.get("next", lambda: 1)


def test_a_command_ends_in_time_and_one_that_fails_says_why():
    with pytest.raises(Unfinished, match="its time was spent"):
        command("-c", "import time; time.sleep(100)", seconds=0)
    with pytest.raises(RuntimeError, match=r"ended with 3:\nso it is"):
        command("-c", "print('so it is'); raise SystemExit(3)", seconds=100)


def test_time_in_which_something_runs_is_counted_once():
    assert covered([(5, 6), (0, 2), (1, 3), (1.5, 1.7)]) == 4
    assert covered([]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux kills what a killed process started")
def test_what_a_killed_command_started_is_killed_with_it(tmp_path):
    inner = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    outer = f"from support.machine import command; command('-c', {inner!r}, seconds=100)"
    paths = os.pathsep.join([str(TESTS), *sys.path])
    process = subprocess.Popen([sys.executable, "-c", outer], env={**os.environ, "PYTHONPATH": paths})
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    process.kill()
    process.wait()
    state = Path("/proc") / (tmp_path / "pid").read_text() / "stat"
    until = time.monotonic() + 60
    while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < until:
        time.sleep(0.01)
    assert not state.exists() or state.read_text().split()[2] == "Z"


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_to_the_same_weights(tmp_path):
    """The command is killed, the trainer with it; then the same command is given again."""
    weights = {}
    for way in ("left alone", "killed"):
        folder = tmp_path / way.replace(" ", "-")
        folder.mkdir()
        # As the short run would find it, whose pace is another every time.
        found = {"compiled": False, "images a second of a short run": 100.0, "steps": 30}
        (folder / "train.json").write_text(json.dumps({"found": found}))
        asked = [sys.executable, measures.__file__, "train", "--small", "--out", str(folder)]
        if way == "killed":
            process = subprocess.Popen(asked, stdout=subprocess.DEVNULL)
            checkpoint = folder / measures.NAME / "checkpoint.safetensors"
            while not checkpoint.exists() and process.poll() is None:
                time.sleep(0.01)
            process.kill()
            process.wait()
            rows = (folder / measures.NAME / "metrics.csv").read_text().splitlines()[1:]
            assert 5 <= int(rows[-1].partition(",")[0]) < 30
            assert not (folder / measures.NAME / f"{measures.NAME}.safetensors").exists()
        done = subprocess.run(asked, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert kept(folder, "train")["whole"]
        weights[way] = load_file(Path(folder) / measures.NAME / f"{measures.NAME}.safetensors")
    one, other = weights.values()
    assert all(torch.equal(one[name], other[name]) for name in one)
