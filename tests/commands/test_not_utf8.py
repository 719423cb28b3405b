"""Bytes on the command line that are no UTF-8, as names of files may have them, end no command."""

import os
from pathlib import Path

import pytest
from support.reports import results

from bench import load_results
from bench.commands.main import main
from bench.report.tables.artefacts import write_tables
from bench.report.verify import verify

ODD = os.fsdecode(b"q\xff")
SHOWN = "q\\udcff"
ASKED = ["--model", "exact-gaussian", "--samplers", "ddim", "--steps", "2", "--n", "20"]


def test_a_run_keeps_its_records_and_takes_them_up_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["run", *ASKED, "--results", ODD]
    monkeypatch.setattr("sys.argv", ["sampler-bench", *command])
    assert main(command) == 0
    assert SHOWN in load_results(ODD).command[0]
    assert main([*command, "--dry-run"]) == 0
    assert "1 of 1 trials are there already" in capsys.readouterr().err
    for verb in (["export", "--format", "json"], ["export"], ["table"], ["plot"], ["report"], ["status"]):
        assert main([*verb, "--results", ODD]) == 0
    assert verify(Path(ODD)).findings == ()


def test_a_config_that_toml_cannot_hold_is_refused(tmp_path, capsys):
    saved = tmp_path / ODD
    assert main(["run", *ASKED, "--results", ODD, "--save-config", str(saved), "--dry-run"]) == 2
    assert "--results holds bytes that are no UTF-8" in capsys.readouterr().err
    assert not saved.exists()
    assert main(["run", *ASKED, "--save-config", str(saved), "--dry-run"]) == 0
    assert saved.exists()


@pytest.mark.parametrize("option", ["--title", "--label"])
def test_titles_and_labels_are_shown(option, tmp_path, capsys):
    store = results(tmp_path / "r")
    given = ODD if option == "--title" else f"ddim:eta=0={ODD}"
    plots = ["--results", str(store.folder), "--out", str(tmp_path / "plots")]
    assert main(["plot", *plots, option, given]) == 0
    assert main(["table", "--results", str(store.folder), option, given]) == 0
    assert SHOWN in capsys.readouterr().out
    if option == "--title":
        write_tables(store.folder, store.read()[0])
        out = tmp_path / "site"
        assert main(["publish", str(store.folder), "--no-redo", "--out", str(out), option, given]) == 0
        assert SHOWN in (out / "index.html").read_text()
