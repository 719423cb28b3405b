"""Packs: equal for equal folders, and whatever is in one that its manifest does not tell is refused."""

import hashlib
import json
import os
import shutil
import zipfile

import pytest
from support.reports import record

from bench.commands.main import main
from bench.errors import BenchError
from bench.records import pack as module
from bench.records.pack import MANIFEST, Manifest, is_pack, is_packed, pack, unpack
from bench.records.store import Store
from bench.report.tables.artefacts import write_tables


@pytest.fixture
def folder(tmp_path):
    store = Store(tmp_path / "mine")
    store.prepare()
    made = record("ddim:eta=0", 10, 2.0)
    store.write(made)
    write_tables(store.folder, [made])
    (store.folder / "blocks").mkdir()
    (store.folder / "blocks" / "0.npz").write_bytes(b"under way")
    (store.folder / "notes.txt").write_text("private")
    return store.folder


def rewritten(path, change, names=None):
    """The pack with its files changed by a function of the mapping from name to content."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def retold(files, **digests):
    """Write a manifest that fits the files, as one who knows the form would."""
    told = {name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != MANIFEST}
    files[MANIFEST] = json.dumps(Manifest("mine", told | digests).to_json()).encode()


def test_what_is_unpacked_is_what_was_packed_and_nothing_else(folder, tmp_path):
    made = pack(folder, tmp_path / "p.zip")
    assert unpack(tmp_path / "p.zip", tmp_path / "there") == made
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    packed = [name for name in files if not name.startswith(("blocks/", "notes"))]
    assert sorted(made.files) == packed and len(packed) == 4
    for name in packed:
        assert (tmp_path / "there" / name).read_bytes() == (folder / name).read_bytes()
        assert made.files[name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert is_pack(tmp_path / "p.zip") and not is_pack(folder) and not is_pack(folder / "notes.txt")


def test_equal_folders_give_equal_packs(folder, tmp_path):
    first = pack(folder, tmp_path / "a.zip")
    other = tmp_path / "elsewhere" / "mine"
    shutil.copytree(folder, other)
    for path in other.rglob("*"):
        os.utime(path, (1e9, 1e9))
    (other / "notes.txt").unlink()
    assert pack(other, tmp_path / "b.zip") == first
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    next((other / "records").glob("*.json")).write_text("{}")
    assert pack(other, tmp_path / "c.zip").digest != first.digest


def test_the_digest_is_that_of_sha256sum_s_lines(folder):
    made = Manifest.of(folder)
    lines = "".join(f"{made.files[name]}  {name}\n" for name in sorted(made.files))
    assert made.digest == hashlib.sha256(lines.encode()).hexdigest()


def swap(files):
    name = next(name for name in files if name.endswith(".md"))
    files[name] += b" "


def add(files):
    files["records/more.json"] = b"{}"


def escape(files):
    files["../records/x.json"] = b"{}"
    retold(files)


def absolute(files):
    files["/tmp/x.json"] = b"{}"
    retold(files)


def code(files):
    files["records/mine.py"] = b"import os"
    retold(files)


def hide(files):
    files["records/.x.json"] = b"{}"
    retold(files)


def long_file(files):
    files[f"records/{'x' * 300}.json"] = b"{}"
    retold(files)


def long_name(files):
    files[MANIFEST] = files[MANIFEST].replace(b'"mine"', b'"%s"' % (b"x" * 5000))


def drop(files):
    files.pop(next(name for name in files if name.endswith(".md")))


def forget(files):
    files.pop(MANIFEST)


def garble(files):
    files[MANIFEST] = b"[]"


def relabel(files):
    told = json.loads(files[MANIFEST])
    files[MANIFEST] = json.dumps({**told, "digest": "0" * 64}).encode()


def newer(files):
    files[MANIFEST] = json.dumps({**json.loads(files[MANIFEST]), "format": 99}).encode()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (swap, "is not the file whose digest the manifest tells"),
        (add, "its files are not those of its manifest: 'records/more.json'"),
        (drop, "its files are not those of its manifest"),
        (escape, "no results folder has a file '../records/x.json'"),
        (absolute, "no results folder has a file '/tmp/x.json'"),
        (code, "no results folder has a file 'records/mine.py'"),
        (hide, "no results folder has a file 'records/.x.json'"),
        (long_file, "no results folder has a file 'records/x{72}...'"),
        (long_name, "its name is longer than 255 letters"),
        (forget, "it has no manifest.json; make a pack with"),
        (garble, "its manifest.json is not a manifest"),
        (relabel, "the manifest's digest is not that of its list of files"),
        (newer, "it was packed by a newer sampler-bench; upgrade to read it"),
    ],
)
def test_a_pack_that_was_changed_is_refused(folder, tmp_path, change, says):
    pack(folder, tmp_path / "p.zip")
    with pytest.raises(BenchError, match=f"p.zip: .*{says}"):
        unpack(rewritten(tmp_path / "p.zip", change), tmp_path / "there")
    assert not (tmp_path / "x.json").exists()


def test_a_damaged_or_too_large_pack_is_refused(folder, tmp_path, monkeypatch):
    pack(folder, tmp_path / "p.zip")
    whole = (tmp_path / "p.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BenchError, match="is damaged"):
        unpack(tmp_path / "half.zip", tmp_path / "there")
    monkeypatch.setattr(module, "LARGEST", 100)
    with pytest.raises(BenchError, match="it is not read"):
        unpack(tmp_path / "p.zip", tmp_path / "there")


def test_any_byte_that_is_changed_is_refused_in_a_sentence_or_changes_nothing(folder, tmp_path):
    """What a zip does not protect, such as its times, may change; the files may not."""
    made = pack(folder, tmp_path / "p.zip")
    content = (tmp_path / "p.zip").read_bytes()
    refused = 0
    for place in range(0, len(content), max(1, len(content) // 150)):
        (tmp_path / "q.zip").write_bytes(
            content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]
        )
        try:
            there = unpack(tmp_path / "q.zip", tmp_path / f"at{place}")
        except BenchError:
            refused += 1
        else:
            assert there == made
    assert refused > 100


@pytest.mark.parametrize(
    ("path", "packed"),
    [
        ("report.html", True),
        ("records/a=1.json", True),
        ("records/a.film.png", True),
        ("records/a.py", False),
        ("records/deep/a.json", False),
        ("records/../a.json", False),
        ("records//a.json", False),
        ("./records/a.json", False),
        ("records\\a.json", False),
        ("records/c:a.json", False),
        ("features/a.npy", False),
        ("tables/a.csv", True),
        ("index.html", False),
    ],
)
def test_only_the_files_of_a_results_folder_are_packed(path, packed):
    assert is_packed(path) is packed


def test_submit_refuses_what_does_not_verify(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["submit", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pack"] == "mine.zip" and told["records"] == 1
    assert told["sha256"] == hashlib.sha256((tmp_path / "mine.zip").read_bytes()).hexdigest()
    next((folder / "tables").glob("*.md")).write_text("best of all")
    assert main(["submit", str(folder), "--out", "other.zip"]) == 1
    assert f"error: nothing was packed: `sampler-bench verify {folder}` must pass" in capsys.readouterr().err
    assert not (tmp_path / "other.zip").exists()


def test_submit_of_no_results_or_of_several(folder, tmp_path, capsys):
    assert main(["submit", str(tmp_path / "nowhere")]) == 2
    shutil.copytree(folder, tmp_path / "more")
    assert main(["submit", str(tmp_path)]) == 2
    assert "holds 2 results folders; a pack is of one" in capsys.readouterr().err
    assert main(["submit", str(folder), "--out", str(folder / "notes.txt" / "p.zip")]) == 1
    assert "choose another --out" in capsys.readouterr().err
