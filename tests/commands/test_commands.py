"""The verbs compare, stats and fetch, on the committed runs and on files made here."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.reports import record

from bench import load_images, load_results
from bench.commands.main import main
from bench.metrics.weights import FILES, WeightFile
from bench.records.store import Store
from bench.report.tables.table import tables_of
from bench.stats.comparison import compare

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
DIGITS = ["--results", str(REFERENCE / "digits")]
EXACT = ["--results", str(REFERENCE / "exact-digits")]


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_compare_pairs_two_trials_through_their_noise(capsys):
    status, out, _ = run(capsys, "compare", "ddim:eta=0@10", "ddim:eta=1@10", *EXACT, "--json")
    assert status == 0
    first, second = json.loads(out)
    scores = {r.key: r.scores["fd_pixels"] for r in Store(REFERENCE / "exact-digits").read()[0]}
    a, b = scores[first["key"]], scores[second["key"]]
    assert second["difference"] == pytest.approx(b.debiased - a.debiased)
    assert second["se"] == compare(b, a).se
    assert second["verdict"] == "worse"
    assert second["se"] < (a.se**2 + b.se**2) ** 0.5  # pairing gains


def test_a_column_names_its_best_and_its_ties(capsys):
    status, out, _ = run(capsys, "compare", "--column", "10", *EXACT, "--json")
    assert status == 0
    verdicts = {row["trial"]: row["verdict"] for row in json.loads(out)}
    assert verdicts["ddim eta=0 S=10"] == "best"
    assert verdicts["ddim eta=0.2 S=10"] == "tie"
    assert set(verdicts.values()) == {"best", "tie", "worse"}
    assert sum(verdict == "worse" for verdict in verdicts.values()) == 5


def test_the_table_marks_the_same_ties():
    (group,) = tables_of(Store(REFERENCE / "exact-digits").read()[0])
    assert group.leaders(10) == ("ddim eta=0", ("ddim eta=0.2",))


def test_what_cannot_be_compared_is_refused_with_the_fields(capsys, tmp_path):
    (tmp_path / "records").mkdir()
    for name in ("digits", "exact-digits"):
        for path in (REFERENCE / name / "records").glob("*eta=0-S10-*.json"):
            (tmp_path / "records" / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    keys = list(load_results(tmp_path).key)
    status, _, err = run(capsys, "compare", *keys, "--metric", "fd_digits", "--results", tmp_path)
    assert status == 2
    assert "they differ in" in err
    assert "N (" in err
    assert "reference (" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give two trials"),
        (["ddim@10"], "give two trials"),
        (["ddim@10", "sigma-hat@10", "--column", "10"], "give two trials"),
        (["--column", "11"], "no trial has 11 steps"),
        (["ddim@10", "ddim@11"], "unknown trial 'ddim@11'"),
        (["ddim@10", "ddim@20", "--metric", "fid"], "has no score 'fid'; it has fd_digits, fd_pixels"),
    ],
)
def test_bad_comparisons_get_a_sentence(capsys, arguments, sentence):
    status, _, err = run(capsys, "compare", *arguments, *DIGITS)
    assert status == 2
    assert sentence in err


def folder_of(folder, records, images=()):
    """A results folder of some records; ``images`` are the pictures of the first ones."""
    store = Store(folder)
    store.prepare()
    for place, one in enumerate(records):
        store.write(one, images[place] if place < len(images) else None)
    return folder


def two_seeds():
    """Eta 0 and 1 at S=5 with the seeds 0 and 1."""
    return [
        record(sampler, 5, value + seed, seed=2 * place + seed, drawn={"seed": seed})
        for place, (sampler, value) in enumerate([("ddim:eta=0", 1.0), ("ddim:eta=1", 3.0)])
        for seed in (0, 1)
    ]


def test_a_column_is_made_for_each_table(capsys, tmp_path):
    folder_of(tmp_path, [*two_seeds(), record("ddim:eta=0", 5, 9.0, n=1000)])
    status, out, _ = run(capsys, "compare", "--column", "5", "--results", tmp_path, "--json")
    assert status == 0
    columns = {}
    for row in json.loads(out):
        columns.setdefault(row["table"], []).append((row["trial"], row["score"], row["verdict"]))
    assert [title.partition("n=")[2].partition(", float32")[0] for title in columns] == [
        "1,000, spacing quadratic, seed 0",
        "50,000, spacing quadratic, seed 0",
        "50,000, spacing quadratic, seed 1",
    ]
    assert list(columns.values()) == [
        [("ddim eta=0 S=5", 9.0, "best")],
        [("ddim eta=0 S=5", 1.0, "best"), ("ddim eta=1 S=5", 3.0, "worse")],
        [("ddim eta=0 S=5", 2.0, "best"), ("ddim eta=1 S=5", 4.0, "worse")],
    ]
    status, out, _ = run(capsys, "compare", "--column", "5", "--results", tmp_path)
    assert status == 0
    assert [line for line in out.splitlines() if "seed" in line] == list(columns)


def test_a_column_leaves_out_what_has_not_the_score(capsys, tmp_path):
    bound = record("ddpm:variance=learned", 5, metric="nll_bits_per_dim")
    folder_of(tmp_path, [record("ddim:eta=0", 5, 1.0), record("ddim:eta=1", 5, 2.0), bound])
    command = ["compare", "--column", "5", "--results", tmp_path]
    status, out, _ = run(capsys, *command, "--metric", "fid", "--json")
    assert status == 0
    assert [row["trial"] for row in json.loads(out)] == ["ddim eta=0 S=5", "ddim eta=1 S=5"]
    status, out, _ = run(capsys, *command, "--json")
    assert status == 0
    assert [row["metric"] for row in json.loads(out)] == ["fid", "fid", "nll_bits_per_dim"]


def test_a_column_that_cannot_be_compared_costs_no_other(capsys, tmp_path):
    lone = [record(spec, 5, n=2, se=float("nan")) for spec in ("ddim:eta=0", "ddim:eta=1")]
    folder_of(tmp_path / "alone", lone)
    status, _, err = run(capsys, "compare", "--column", "5", "--results", tmp_path / "alone")
    assert status == 2
    assert "a comparison needs at least 2" in err
    folder_of(tmp_path / "beside", [*lone, *two_seeds()])
    status, out, _ = run(capsys, "compare", "--column", "5", "--results", tmp_path / "beside")
    assert status == 0
    assert out.count("not compared: fid has 20 jackknife groups") == 1
    assert out.count(" best\n") == 2


def test_trials_of_one_name_are_told_apart_by_what_differs(capsys, tmp_path):
    records = [*two_seeds(), record("ddim:eta=1", 7), record("ddim:eta=1", 7, metric="kid")]
    folder_of(tmp_path, records)
    status, _, err = run(capsys, "compare", "ddim:eta=0@5", "ddim:eta=1@5", "--results", tmp_path)
    assert status == 2
    assert "ddim:eta=0@5 names 2 trials that differ in seed; give one of their keys: " in err
    assert all(f"{one.key} (seed {one.trial.seed})" in err for one in records[:2])
    other_file = record("ddim:eta=0", 5, drawn={"reference": "a.npz", "batch": 50})
    folder_of(tmp_path, [other_file])
    status, _, err = run(capsys, "compare", "ddim:eta=0@5", "ddim:eta=1@5", "--results", tmp_path)
    assert "3 trials that differ in seed, batch, reference" in err
    assert f"{other_file.key} (seed 0, batch 50, reference a.npz)" in err
    assert "(seed 1, batch 100, reference the model's)" in err
    # Of several, the one that has the score is meant.
    command = ["compare", "ddim:eta=1@7", "ddim:eta=1@7", "--results", tmp_path]
    assert run(capsys, *command)[0] == 2
    assert run(capsys, *command, "--metric", "fid")[0] == 0


def test_a_pair_is_said_to_share_its_noise_or_not(capsys, tmp_path):
    first, other_seed, second, _ = two_seeds()
    other_batch = record("ddim:eta=1", 5, 3.0, drawn={"batch": 50})
    wide = record("ddim:eta=1", 5, 3.0, model="wide")
    images = [torch.zeros(shape, dtype=torch.uint8) for shape in ((2, 1, 8, 8), (2, 3, 4, 4))]
    folder_of(tmp_path, [first, wide, other_seed, second, other_batch], images)

    def pair(other):
        command = ["compare", first.key, other.key, "--results", tmp_path]
        _, out, _ = run(capsys, *command)
        status, rows, _ = run(capsys, *command, "--json")
        assert status == 0
        return out.splitlines()[-1], json.loads(rows)[1]["paired"]

    assert pair(second) == pair(other_batch) == ("paired: one noise, of seed 0", True)
    assert pair(other_seed) == ("not paired: seeds 0 and 1", False)
    assert pair(wide) == ("not paired: images of 1x8x8 and 3x4x4", False)
    (tmp_path / "records" / f"{wide.name}.png").write_bytes(b"damaged")
    assert pair(wide)[1]


@pytest.mark.parametrize("what", [["ddim:eta=0@5", "ddim:eta=1@5"], ["--column", "5"]])
def test_plain_values_in_the_place_of_worthless_ones_are_said(capsys, tmp_path, what):
    flags = ("rank-deficient", "other-weights")
    given = [("ddim:eta=0", 1.0, 7.0), ("ddim:eta=1", 2.0, 6.0)]
    records = [record(spec, 5, value, debiased=off, flags=flags) for spec, value, off in given]
    folder_of(tmp_path, records)
    status, out, _ = run(capsys, "compare", *what, "--results", tmp_path)
    assert status == 0
    assert out.splitlines()[-2:] == [
        "plain values compared: rank-deficient",
        "not judged: every score is rank-deficient",
    ]
    assert [line.split()[3:5] for line in out.splitlines()[1:3]] == [["1", "-"], ["2", "-"]]
    _, out, _ = run(capsys, "compare", *what, "--results", tmp_path, "--json")
    first, second = json.loads(out)
    assert first["corrected"] is second["corrected"] is None
    assert second["flags"] == list(flags)
    assert second["difference"] == 1.0


def test_corrected_values_are_compared_without_a_word(capsys):
    _, out, _ = run(capsys, "compare", "--column", "10", *EXACT)
    assert "plain values" not in out
    assert " - " not in out


@pytest.mark.parametrize(
    "command",
    [
        ["table"],
        ["table", "--claims"],
        ["table", "--seeds"],
        ["plot"],
        ["export", "--format", "latex"],
        ["compare", "--column", "10"],
    ],
)
def test_a_score_that_no_trial_has_gets_a_sentence(capsys, tmp_path, command):
    out = ["--out", tmp_path] if command == ["plot"] else []
    status, _, err = run(capsys, *command, *DIGITS, *out, "--metric", "fd_digit")
    assert status == 2
    assert err == "error: unknown metric 'fd_digit'; did you mean fd_digits?\n"
    status, _, err = run(capsys, *command, *DIGITS, *out, "--metric", "nope")
    assert (status, err) == (2, "error: unknown metric 'nope'; known: fd_digits, fd_pixels\n")


def test_stats_are_those_of_the_images_and_can_be_imported(capsys, tmp_path):
    images = load_images("digits-held-out").images[:300]
    np.savez(tmp_path / "images.npz", images=images.numpy())
    status, out, _ = run(
        capsys,
        "stats",
        tmp_path / "images.npz",
        "--metric",
        "fd_pixels",
        "--out",
        tmp_path / "s.npz",
        "--json",
    )
    assert status == 0
    assert json.loads(out)["n"] == 300
    flat = images.flatten(1).double().numpy() / 255
    with np.load(tmp_path / "s.npz") as saved:
        assert np.allclose(saved["mu"], flat.mean(0), atol=1e-7)
        assert np.allclose(saved["sigma"], np.cov(flat.T), atol=1e-7)


def test_statistics_of_small_images_are_imported_with_their_shape(capsys, tmp_path):
    np.savez(tmp_path / "s.npz", mu=np.zeros(64), sigma=np.eye(64))
    command = ["stats", tmp_path / "s.npz", "--metric", "fd_digits", "--json"]
    status, _, err = run(capsys, *command)
    assert (status, "images of shape (1, H, W), not (3, 32, 32)" in err) == (2, True)
    status, out, _ = run(capsys, *command, "--shape", "1,12,12", "--n", 500)
    assert status == 0
    assert (json.loads(out)["features"], json.loads(out)["n"]) == (64, 500)
    assert run(capsys, *command, "--shape", "12")[0] == 2
    status, _, err = run(capsys, *command, "--shape", "1,12,12", "--out", tmp_path / "nowhere" / "s.npz")
    assert status == 1
    assert "choose another --out" in err


def test_the_hash_of_imported_statistics_is_that_of_a_run(capsys, tmp_path):
    """A run is not told how many images are behind mu and sigma."""
    path = tmp_path / "s.npz"
    np.savez(path, mu=np.zeros(144), sigma=np.eye(144))
    command = ["stats", path, "--metric", "fd_pixels", "--shape", "1,12,12", "--json"]
    printed = [json.loads(run(capsys, *command, *more)[1]) for more in ([], ["--n", 500])]
    assert [facts["n"] for facts in printed] == [0, 500]
    results = tmp_path / "results"
    options = ["--samplers", "ddim", "--steps", "2", "--n", "20", "--metrics", "fd_pixels"]
    assert run(capsys, "run", *options, "--reference", path, "--results", results)[0] == 0
    (record,) = (r for r in Store(results).read()[0] if r.sampler.name == "ddim")
    assert {facts["reference hash"] for facts in printed} == {record.scores["fd_pixels"].reference}


@pytest.mark.parametrize("option", [("--n", "7"), ("--shape", "1,12,12")])
def test_options_of_imported_statistics_are_refused_with_images(capsys, option):
    status, _, err = run(capsys, "stats", "digits-held-out", "--metric", "fd_pixels", *option)
    assert status == 2
    assert f"leave {option[0]} out" in err
    assert "digits-held-out is measured" in err


def test_statistics_are_written_where_they_were_asked_for(capsys, tmp_path):
    out = tmp_path / "plain.dat"
    assert run(capsys, "stats", "digits-held-out", "--metric", "fd_digits", "--out", out)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["plain.dat"]
    with np.load(out) as saved:
        assert saved["mu"].shape == (64,)


def test_images_that_cannot_be_decoded_are_refused(capsys, tmp_path):
    images = load_images("digits-held-out").images[:5, 0].numpy()
    for place, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{place}.png")
    (tmp_path / "7.png").write_bytes(b"no picture")
    status, out, err = run(capsys, "stats", tmp_path, "--metric", "fd_pixels", "--json")
    assert (status, out) == (2, "")
    assert str(tmp_path / "7.png") in err


def test_a_score_with_a_target_is_listed_with_it(capsys):
    _, out, _ = run(capsys, "list", "metrics", "--json")
    better = {row["name"]: row["better"] for row in json.loads(out)["metrics"]}
    assert [better[name] for name in ("copying_pixels", "fid", "recall")] == ["near 0.5", "lower", "higher"]


def test_one_changed_byte_of_the_images_is_another_reference(capsys, tmp_path):
    images = load_images("digits-held-out").images[:50].numpy().copy()
    hashes = []
    for value in (images[7, 0, 5, 5], images[7, 0, 5, 5] ^ 1, images[7, 0, 5, 5] ^ 1):
        images[7, 0, 5, 5] = value
        np.savez(tmp_path / "images.npz", images=images)
        _, out, _ = run(capsys, "stats", tmp_path / "images.npz", "--metric", "fd_pixels", "--json")
        hashes.append(json.loads(out)["reference hash"])
    assert hashes[0] != hashes[1] == hashes[2]


def test_replicates_over_seeds_are_mean_and_spread(capsys, tmp_path):
    for seed in (0, 1, 2):
        options = ["--model", "exact-gaussian", "--samplers", "ddim", "--steps", "5", "--n", "100"]
        assert run(capsys, "run", *options, "--seed", seed, "--results", tmp_path)[0] == 0
    table = load_results(tmp_path)
    values = table[table["sampler"] == "ddim"].score.to_numpy()
    status, out, _ = run(capsys, "table", "--seeds", "--results", tmp_path, "--json")
    assert status == 0
    (row,) = json.loads(out)
    assert row["seeds"] == 3
    assert row["mean"] == pytest.approx(values.mean())
    assert row["sd"] == pytest.approx(values.std(ddof=1))
    assert row["se_of_mean"] == pytest.approx(values.std(ddof=1) / 3**0.5)
    assert row["min_of_seeds"] == values.min()


def test_a_seed_counts_once_and_references_are_not_mixed(capsys, tmp_path):
    values = {0: 1.0, 1: 3.0}
    made = [record(value=value, drawn={"seed": seed}) for seed, value in values.items()]
    made += [record(value=1.0, drawn={"seed": 0, "batch": 50})]
    made += [record(value=8.0, drawn={"seed": 2}, reference="changed")]
    made += [record(value=8.0, drawn={"seed": 3}, space="another")]
    made += [record(value=8.0, drawn={"seed": 4}, weights="trained on")]
    folder_of(tmp_path, made)
    status, out, _ = run(capsys, "table", "--seeds", "--results", tmp_path, "--json")
    assert status == 0
    (row,) = json.loads(out)
    assert (row["seeds"], row["mean"], row["sd"]) == (2, 2.0, pytest.approx(2**0.5))


def test_fetch_knows_its_names(capsys):
    status, _, err = run(capsys, "fetch", "incepton")
    assert status == 2
    assert "did you mean inception" in err


def test_fetch_checks_what_it_downloads(capsys, tmp_path, monkeypatch):
    """From a file address, so that nothing leaves the machine."""
    source = tmp_path / "source.bin"
    source.write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    file = WeightFile("toy.pth", 7, right, source.as_uri(), "SAMPLER_BENCH_TOY", "sampler-bench fetch toy")
    monkeypatch.setitem(FILES, "toy", file)
    status, out, _ = run(capsys, "fetch", "toy", "--out", tmp_path / "here")
    assert status == 0
    assert Path(out.strip()).read_bytes() == b"weights"

    source.write_bytes(b"weighed")
    status, _, err = run(capsys, "fetch", "toy", "--out", tmp_path / "there")
    assert status == 1
    assert "it was not kept" in err
    assert list((tmp_path / "there").iterdir()) == []
