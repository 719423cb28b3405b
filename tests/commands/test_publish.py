"""``publish`` as it is used: honest folders and packs become a page, and nothing forged does."""

import json
import shutil
from dataclasses import replace

import pytest
from support.sweeps import Silent

from bench import get_sampler
from bench.commands.main import main
from bench.records.pack import pack
from bench.records.record import Record
from bench.records.store import Store
from bench.report.tables.artefacts import write_tables
from bench.sweep.request import Sweep
from bench.sweep.runner import Runner


def whole(store):
    """Write the tables that a folder's records make; of plots there are none to be made again."""
    write_tables(store.folder, store.read()[0])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of two samplers on an exact model, with its tables."""
    store = Store(tmp_path_factory.mktemp("publish") / "mine")
    runner = Runner(
        Sweep("exact-gaussian", (get_sampler("ddim"), get_sampler("ddim:eta=1")), steps=(2, 5), n=20), store
    )
    runner.run(runner.plan(), Silent())
    whole(store)
    return store


@pytest.fixture
def store(made, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(made.folder, tmp_path / "mine")
    return Store(tmp_path / "mine")


def flattered(store):
    """Make one score better together with all that belongs to it, as one who knows the format would."""
    one = next(r for r in store.read()[0] if r.sampler.label == "ddim eta=1")
    name, score = next(iter(one.scores.items()))
    moved = {part: 0.5 * getattr(score, part) for part in ("value", "debiased", "se")}
    better = replace(score, leave_one_out=tuple(0.5 * x for x in score.leave_one_out), **moved)
    store.write(replace(one, scores={**one.scores, name: better}))
    whole(store)


def test_a_folder_and_a_pack_become_a_page(made, tmp_path, capsys):
    pack(made.folder, tmp_path / "theirs.zip")
    arguments = ["publish", str(made.folder), str(tmp_path / "theirs.zip"), "--out", str(tmp_path / "site")]
    assert main([*arguments, "--redo", "1", "--seed", "3", "--title", "Ours"]) == 0
    out = capsys.readouterr().out
    assert out.count("1 drawn again, chosen with --seed 3") == 2
    assert "equal to the bit" in out
    assert out.endswith(f"{tmp_path / 'site' / 'index.html'}: 1 boards, 4 trials of 2 folders\n")
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "<title>Ours – sampler-bench</title>" in page
    assert "Not drawn again:" not in page and "chosen with --seed 3" in page
    assert sorted(path.name for path in (tmp_path / "site" / "records").iterdir()) == ["mine", "mine-2"]
    for path in (tmp_path / "site" / "records" / "mine").iterdir():
        assert Record.from_json(json.loads(path.read_text())).key == path.stem


def test_a_folder_given_twice_is_one(made, tmp_path, capsys):
    arguments = ["publish", str(made.folder), str(made.folder.parent), "--no-redo"]
    assert main([*arguments, "--out", str(tmp_path / "site")]) == 0
    assert capsys.readouterr().out.endswith("4 trials of 1 folders\n")
    assert "Not drawn again:" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")


def test_trust_in_one_of_the_folders_below_another_is_for_that_one(made, store, tmp_path, capsys):
    whole(store)
    shutil.copytree(made.folder, tmp_path / "other")
    asked = ["publish", str(tmp_path), "--trust", str(store.folder), "--redo", "1"]
    assert main([*asked, "--out", str(tmp_path / "out" / "site")]) == 0
    assert capsys.readouterr().out.count("1 drawn again, chosen with") == 1
    page = (tmp_path / "out" / "site" / "index.html").read_text(encoding="utf-8")
    assert "<strong>Not drawn again:</strong> mine. " in page


def test_what_fails_verify_is_refused_whatever_was_asked(store, tmp_path, capsys):
    path = next((store.folder / "records").glob("*.json"))
    path.write_text(path.read_text().replace('"n": 20', '"n": 21'))
    for asked in (["--no-redo"], ["--trust", str(store.folder)], ["--redo", "1"]):
        assert main(["publish", str(store.folder), *asked, "--out", str(tmp_path / "site")]) == 1
        told = capsys.readouterr().err
        assert "was changed after it was written: its digest is not that of its content" in told
        assert "error: nothing was published, because of mine" in told
        assert not (tmp_path / "site").exists()


def test_a_forged_score_whose_digests_all_fit_is_found_by_drawing_it_again(made, store, tmp_path, capsys):
    flattered(store)
    both = [str(made.folder), str(store.folder)]
    assert main(["verify", str(store.folder)]) == 0
    assert main(["publish", *both, "--redo", "9", "--out", str(tmp_path / "site")]) == 1
    told = capsys.readouterr().err
    assert "error: mine-2: ddim eta=1 at S=" in told and "DIFFERS: " in told
    assert told.endswith("error: nothing was published, because of mine-2\n")
    assert not (tmp_path / "site").exists()


def test_what_cannot_be_drawn_here_is_published_on_trust_alone(store, tmp_path, capsys):
    renamed(store, "weights/gone.safetensors")
    site = tmp_path / "site"
    assert main(["publish", str(store.folder), "--out", str(site)]) == 1
    told = capsys.readouterr().err
    assert "cannot be drawn again: " in told
    assert "may be published as it was told, and the page says so: --trust DIR" in told
    assert main(["publish", "--trust", str(store.folder), "--out", str(site)]) == 0
    assert "Not drawn again:" in (site / "index.html").read_text(encoding="utf-8")


def renamed(store, model):
    """Let all records of a folder name another model, as one who knows the format would."""
    for one in store.read()[0]:
        store.write(replace(one, trial=replace(one.trial, model=model), key=""))
        (store.records / f"{one.name}.json").unlink()
    for path in (store.folder / "tables").iterdir():
        path.unlink()
    whole(store)


def test_a_pack_has_no_file_executed(store, tmp_path, capsys):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'was here')!r}, 'w').close()\n")
    renamed(store, f"{tmp_path / 'evil.py'}:make")
    pack(store.folder, tmp_path / "p.zip")
    assert main(["publish", str(tmp_path / "p.zip"), "--out", str(tmp_path / "site")]) == 1
    told = capsys.readouterr().err
    assert "its pack names a model in a Python file, which is not executed for a pack" in told
    assert not (tmp_path / "was here").exists() and not (tmp_path / "site").exists()
    assert main(["publish", "--trust", str(tmp_path / "p.zip"), "--out", str(tmp_path / "site")]) == 0
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give results folders or packs to publish"),
        (["nowhere"], "nowhere does not exist; give results folders or packs"),
        (["x", "--redo", "0"], "--redo must be at least 1, got 0"),
        (["x", "--no-redo", "--redo", "2"], "--no-redo draws nothing again: leave out"),
        (["x", "--no-redo", "--seed", "2"], "--no-redo draws nothing again: leave out"),
        (["file.txt"], "file.txt is no results folder and no pack"),
        (["empty"], "no records in or below empty"),
        (["mine", "--out", "thesis"], "thesis holds other files than a leaderboard's"),
    ],
)
def test_bad_input_is_a_sentence(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("x")
    assert main(["publish", *arguments]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1


def test_a_pack_that_was_changed_is_refused(made, tmp_path, capsys):
    pack(made.folder, tmp_path / "p.zip")
    whole_pack = (tmp_path / "p.zip").read_bytes()
    (tmp_path / "p.zip").write_bytes(whole_pack[:2000] + bytes([whole_pack[2000] ^ 1]) + whole_pack[2001:])
    assert main(["publish", str(tmp_path / "p.zip"), "--out", str(tmp_path / "site")]) == 1
    assert "p.zip" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()
