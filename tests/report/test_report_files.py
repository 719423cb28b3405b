"""Results leave the folder, meet others', and are what their records make: export, merge, verify."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.reports import record, results

from bench import load_results
from bench.commands.main import main
from bench.metrics import GroupedStatistics
from bench.metrics.kernel import KernelMetric
from bench.metrics.reference import Reference
from bench.records.merging import merge
from bench.records.store import Store
from bench.report.plots.gallery import draw_files
from bench.report.tables.artefacts import write_tables
from bench.report.tables.table import tables_of
from bench.report.verify import picture_difference, verify
from bench.stats.resampling import jackknife

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


@pytest.fixture
def store(tmp_path):
    return results(tmp_path / "here")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with every table and plot."""
    made = results(tmp_path_factory.mktemp("whole") / "inner")
    records = made.read()[0]
    write_tables(made.folder, records, ["ddim-table1-cifar10"])
    list(draw_files(tables_of(records), made, made.folder / "plots"))
    return made


def test_export_loses_nothing(store, tmp_path, capsys):
    known = load_results(store.folder)
    assert main(["export", "--results", str(store.folder)]) == 0
    read = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(read.columns) == list(known.columns)
    assert read.score.tolist() == pytest.approx(known.score.tolist(), rel=1e-15, nan_ok=True)
    out = tmp_path / "rows.json"
    assert main(["export", "--results", str(store.folder), "--out", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert [row["key"] for row in rows] == known.key.tolist()
    assert rows[0]["score"] == pytest.approx(known.score[0], rel=1e-14)


def test_export_parquet_or_the_sentence_that_says_what_it_needs(store, tmp_path, capsys):
    out = tmp_path / "rows.parquet"
    status = main(["export", "--results", str(store.folder), "--out", str(out)])
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        assert status == 2
        assert "pip install pyarrow" in capsys.readouterr().err
    else:
        assert pd.read_parquet(out).score.tolist() == load_results(store.folder).score.tolist()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--out", "rows.xlsx"], "rows.xlsx has no known ending; use .csv, .parquet, .json, .tex"),
        (["--format", "parquet"], "Parquet is no text; give --out FILE.parquet"),
    ],
)
def test_export_that_cannot_be(store, arguments, sentence, capsys):
    assert main(["export", "--results", str(store.folder), *arguments]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "arguments", "out"),
    [
        ("export", [], "no/rows.csv"),
        ("plot", [], "file/plots"),
        ("report", [], "file/report.html"),
        ("submit", [], "file/pack.zip"),
        ("publish", [], "file/site"),
        ("moments", ["--model", "exact-gaussian", "--steps", "2", "--n", "20"], "no/m.json"),
        ("stats", ["file", "--metric", "fd_pixels"], "no/s.npz"),
    ],
)
def test_an_out_that_cannot_be_written_is_failed_work(
    store, verb, arguments, out, tmp_path, monkeypatch, capsys
):
    """Whoever computes for long finds out before: `publish` would verify and draw, `stats` read images."""
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    folder = {"export": ["--results"], "plot": ["--results"], "report": ["--results"]}.get(verb, [])
    given = [] if verb in ("moments", "stats") else [*folder, str(store.folder)]
    write_tables(store.folder, store.read()[0])
    assert main([verb, *given, *arguments, "--out", out]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: cannot write {out}: ") and line.endswith("; choose another --out")


def test_export_latex(store, tmp_path):
    out = tmp_path / "table.tex"
    assert main(["export", "--results", str(store.folder), "--out", str(out)]) == 0
    assert out.read_text().startswith(r"\begin{tabular}{lrrr}")


def test_merge_of_two_halves_is_the_whole(store, tmp_path):
    halves = [Store(tmp_path / name) for name in ("a", "b")]
    for place, made in enumerate(store.read()[0]):
        halves[place % 2].prepare()
        for file in store.records.glob(f"{made.name}.*"):
            shutil.copy(file, halves[place % 2].records)
    done = merge([half.folder for half in halves], tmp_path / "merged")
    assert len(done.copied) == 12
    assert not done.conflicts
    left = {path.name: path.read_bytes() for path in store.records.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "merged" / "records").iterdir()} == left


def test_merge_again_changes_nothing(store, tmp_path, capsys):
    arguments = ["merge", str(store.folder), "--results", str(tmp_path / "merged")]
    assert main(arguments) == 0
    assert main(arguments) == 0
    assert "12 there already" in capsys.readouterr().out


def test_merge_names_a_conflict_and_keeps_what_is_there(tmp_path, capsys):
    for name, value in (("a", 2.0), ("b", 2.5)):
        made = Store(tmp_path / name)
        made.prepare()
        made.write(record(value=value))
    arguments = ["merge", str(tmp_path / "a"), str(tmp_path / "b"), "--results", str(tmp_path / "merged")]
    assert main(arguments) == 1
    told = capsys.readouterr()
    assert "1 copied, 0 there already, 1 in conflict" in told.out
    assert "differ in scores fid; the latter is kept" in told.err
    assert str(tmp_path / "b" / "records") in told.err
    assert load_results(tmp_path / "merged").score.tolist() == [2.0]


def test_other_times_and_machines_are_no_conflict(tmp_path):
    for name, seconds in (("a", 1.0), ("b", 2.0)):
        made = record()
        Store(tmp_path / name).prepare()
        Store(tmp_path / name).write(replace(made, cost=replace(made.cost, sampling_seconds=seconds)))
    done = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert (len(done.copied), len(done.same), done.conflicts) == (1, 1, [])


def test_a_success_replaces_a_failure_and_never_the_other_way_round(tmp_path):
    for name, status in (("failed", "failed"), ("done", "done")):
        Store(tmp_path / name).prepare()
        Store(tmp_path / name).write(record(status=status))
    for order in (("failed", "done"), ("done", "failed")):
        out = tmp_path / "-".join(order)
        done = merge([tmp_path / name for name in order], out)
        assert load_results(out).status.tolist() == ["done"]
        assert len(done.replaced) == (order[0] == "failed")
        assert not done.conflicts


def test_merge_into_itself_is_refused(store, capsys):
    assert main(["merge", str(store.folder), "--results", str(store.folder)]) == 2
    assert "is the folder to merge into" in capsys.readouterr().err


def test_verify_finds_nothing_where_nothing_was_changed(whole, capsys):
    assert main(["verify", str(whole.folder.parent)]) == 0
    assert "12 records, are as their records make them" in capsys.readouterr().out
    assert verify(whole.folder).files == 3 + 2 + 2 + 10


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "copy")
    return Store(tmp_path / "copy")


def _reasons(store):
    return {str(f.path.relative_to(store.folder)): f.reason for f in verify(store.folder).findings}


def test_verify_says_what_makes_tables_again(copy, capsys):
    next((copy.folder / "tables").glob("*.md")).write_text("another release wrote it otherwise")
    assert main(["verify", str(copy.folder)]) == 1
    assert capsys.readouterr().err.endswith(
        "for tables the command of the run, which draws nothing that is there\n"
    )


def test_verify_names_a_changed_digit(copy):
    path = copy.folder / "tables" / "digits-fd_digits.csv"
    path.write_text(path.read_text().replace("uniform,10,fd_digits,2.0,", "uniform,10,fd_digits,1.0,", 1))
    (reason,) = _reasons(copy).values()
    assert "line 2 has 'niform,10,fd_digits,1.0," in reason
    assert main(["verify", str(copy.folder)]) == 1


def test_an_edited_score_is_named_though_everything_was_made_again_with_it(copy):
    path = next(copy.records.glob("*eta=0-S10-*.json"))
    path.write_text(path.read_text().replace('"value": 2.0', '"value": 2.0001'))
    write_tables(copy.folder, copy.read()[0], ["ddim-table1-cifar10"])
    (reason,) = [why for name, why in _reasons(copy).items() if name.startswith("records")]
    assert reason == "was changed after it was written: its digest is not that of its content"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"value": 0.9}, "impossible fd_digits: 0.9, where it is 2"),
        ({"se": 0.001}, "an error of 0.001, where the values without parts of the samples say 0.01"),
    ],
)
def test_a_score_that_its_own_leave_one_out_values_cannot_make_is_named(copy, change, reason):
    made = next(one for one in copy.read()[0] if one.trial.steps == 10 and one.kind == "samples")
    copy.write(replace(made, scores={"fd_digits": replace(made.scores["fd_digits"], **change)}))
    (found,) = [why for name, why in _reasons(copy).items() if name.startswith("records")]
    assert reason in found


def test_an_error_that_is_not_the_jackknife_s_is_possible(copy):
    """KID has Hoeffding's, which may lie below the jackknife's."""
    draws = np.random.default_rng(40)
    ours, theirs = (draws.normal(size=(60, 4)).astype(np.float32) for _ in range(2))
    stats = GroupedStatistics(60, 4, keep_features=True)
    stats.add(ours, np.arange(60))
    reference = Reference("r", 60, np.zeros(4), np.eye(4), "hash", "space", theirs)
    kid = KernelMetric("kid", "space").score(stats, reference)
    assert kid.se < 0.85 * jackknife(kid.value, kid.leave_one_out).se
    made = next(one for one in copy.read()[0] if one.trial.steps == 10 and one.kind == "samples")
    copy.write(replace(made, scores={"kid": kid}))
    assert not [why for name, why in _reasons(copy).items() if name.startswith("records")]


def test_an_error_a_tenth_below_the_jackknife_s_is_named_where_the_score_is_corrected_by_it(copy):
    made = next(one for one in copy.read()[0] if one.trial.steps == 10 and one.kind == "samples")
    score = made.scores["fd_digits"]
    biased = jackknife(score.value, [value + 0.001 for value in score.leave_one_out])
    for part, named in ((1.0, False), (0.9, True)):
        left, se = biased.leave_one_out, part * biased.se
        shown = replace(score, debiased=biased.debiased, leave_one_out=left, se=se)
        copy.write(replace(made, scores={"fd_digits": shown}))
        reasons = [why for name, why in _reasons(copy).items() if name.startswith("records")]
        assert bool(reasons) == named


def test_a_record_of_a_version_without_digests_is_as_it_was(copy):
    path = next(copy.records.glob("*.json"))
    fields = json.loads(path.read_text())
    fields.pop("digest")
    path.write_text(json.dumps(fields))
    assert _reasons(copy) == {}


def test_verify_names_a_changed_score(copy):
    path = next(copy.records.glob("*eta=0-S10-*.json"))
    path.write_text(path.read_text().replace('"value": 2.0', '"value": 2.7'))
    found = _reasons(copy)
    assert {name for name in found if name.startswith("tables")} == {
        f"tables/{name}"
        for name in (
            "digits-fd_digits.csv", "digits-fd_digits.md", "digits-fd_digits.txt",
            "beside-ddim-table1-cifar10.csv", "beside-ddim-table1-cifar10.md",
        )
    }  # fmt: skip
    assert "plots/digits-fd_digits-steps.png" in found


def test_verify_names_a_trial_that_is_not_its_key(copy):
    path = next(copy.records.glob("*eta=0-S10-*.json"))
    path.write_text(path.read_text().replace('"seed": 0,', '"seed": 1,', 1))
    assert "and its trial's is" in _reasons(copy)[f"records/{path.name}"]


def test_verify_names_what_is_missing_too_many_or_damaged(copy):
    (copy.folder / "tables" / "digits-fd_digits.md").unlink()
    (copy.folder / "plots" / "mine.png").write_bytes(b"")
    (copy.folder / "plots" / "digits-fd_digits-heat.png").write_bytes(b"\x89PNG")
    next(copy.records.glob("*eta=1-S50-*.json")).write_text("{")
    found = _reasons(copy)
    assert found["tables/digits-fd_digits.md"] == "is missing"
    assert found["plots/mine.png"] == "is made by no record"
    assert found["plots/digits-fd_digits-heat.png"] == "cannot be read as a picture"
    assert any(reason == "cannot be read: it is truncated or not a record" for reason in found.values())


def test_verify_names_the_files_of_others_alone_and_not_those_of_systems(copy):
    named = ("plots/x.txt", "plots/README", "plots/a.jpg", "plots/a.PNG", "plots/a.svg", "tables/a-dark.png")
    passed = ("plots/.DS_Store", "plots/Thumbs.db", "tables/.a.md.0123abcd-1-01234567.tmp")
    for name in (*named, *passed):
        (copy.folder / name).write_bytes(b"")
    assert _reasons(copy) == dict.fromkeys(named, "is made by no record")


def test_a_picture_moved_by_a_hair_passes_and_a_marker_moved_does_not(whole, tmp_path):
    path = whole.folder / "plots" / "digits-fd_digits-steps.png"
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float64)
    blurred = pixels.copy()
    blurred[:, 1:] = 0.8 * pixels[:, 1:] + 0.2 * pixels[:, :-1]  # a fifth of a pixel to the right
    near, far = tmp_path / "near.png", tmp_path / "far.png"
    Image.fromarray(blurred.round().astype(np.uint8)).save(near)
    assert picture_difference(path, near) == ""
    moved = pixels.copy()
    moved[296:304, 296:304] = (8, 67, 142)  # a whole square, so that no other differs
    Image.fromarray(moved.astype(np.uint8)).save(far)
    assert "most around pixel (296, 296)" in picture_difference(path, far)


@pytest.mark.parametrize("name", sorted(path.name for path in REFERENCE.glob("*") if path.is_dir()))
def test_the_committed_runs_are_what_their_records_make(name):
    found = verify(REFERENCE / name)
    assert [str(finding) for finding in found.findings] == []
    assert found.files >= 13


def test_verify_of_a_folder_without_records(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    assert "no records in or below" in capsys.readouterr().err
