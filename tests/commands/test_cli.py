"""The command line as a user meets it: what it prints, its exit status, and that nothing is lost."""

import json
import subprocess
import sys

import pytest
from support.commands import bench

from bench import get_sampler, load_results
from bench.commands.main import main
from samplers.sets import FAST, PAPER

MODEL = "exact-gaussian"
SWEEP = ("run", "--model", MODEL, "--n", "60", "--samplers", "paper", "--steps", "5,10", "--results")
SMALL = ("run", "--model", MODEL, "--n", "20", "--steps", "2", "--samplers", "ddim", "--results")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A small sweep of the DDIM table's rows."""
    folder = tmp_path_factory.mktemp("swept")
    out = bench(*SWEEP, folder)
    assert out.returncode == 0, out.stderr
    return folder, out


def test_run_ends_with_the_table_and_the_paths_of_what_it_wrote(swept):
    folder, out = swept
    for text in ("ddim eta=0.2", "ddpm learned", "real images (n=60)", "S=5", "S=10", "one standard error"):
        assert text in out.stdout
    written = [line.strip() for line in out.stdout.splitlines() if line.startswith("  " + str(folder))]
    assert len(written) == 3 + 2 + 8  # tables, claims, plots and sheets of pictures
    for path in written:
        assert (folder / path).stat().st_size > 100
    assert len(load_results(folder)) == 2 * 7 + 1
    assert "[14/14]" in out.stderr


def test_every_sampler_of_the_set_is_a_row(swept):
    labels = set(load_results(swept[0]).label)
    etas = {f"ddim eta={eta}" for eta in ("0", "0.2", "0.5", "1")}
    assert labels == etas | {"ddpm fixedsmall", "ddpm fixedlarge", "ddpm learned", "real images"}


def test_run_again_computes_nothing(swept):
    out = bench(*SWEEP, swept[0])
    assert out.returncode == 0
    assert "14 of 14 trials are there already" in out.stderr
    assert "[1/" not in out.stderr


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "csv", "html"])
def test_table_in_every_format(swept, form):
    out = bench("table", "--results", swept[0], "--format", form)
    assert out.returncode == 0
    frame = load_results(swept[0])
    score = frame[(frame.label == "ddim eta=0.5") & (frame.steps == 10)].score.iloc[0]
    shown = repr(float(score)) if form == "csv" else f"{score:.4f}"[:-1]
    assert shown in out.stdout, out.stdout


def test_table_json_holds_every_column(swept):
    rows = json.loads(bench("table", "--results", swept[0], "--json").stdout)
    assert len(rows) == 15
    assert {"score", "score_se", "network_calls", "key", "version_torch"} <= set(rows[0])


def test_show_tells_where_a_number_comes_from(swept):
    out = bench("show", "ddim:eta=0.2@10", "--results", swept[0])
    assert out.returncode == 0
    for text in (
        "fd_pixels",
        "arXiv:2010.02502",
        "10 an image, counted",
        "sampler-bench run",
        "weights=",
        "torch=",
    ):
        assert text in out.stdout
    key = json.loads(bench("show", "sigma-hat@5", "--results", swept[0], "--json").stdout)[0]["trial"]["key"]
    assert "ddpm fixedlarge at S=5" in bench("show", key[:8], "--results", swept[0]).stdout


def test_status_counts(swept):
    out = bench("status", "--results", swept[0])
    assert out.returncode == 0
    assert "15 done, 0 skipped, 0 failed, 0 under way, 0 damaged" in out.stdout


def test_dry_run_counts_calls_and_computes_nothing(tmp_path):
    out = bench(
        *SWEEP[:3], "--n", "50", *SWEEP[5:7], "--steps", "10,30", "--dry-run", "--results", tmp_path / "r"
    )
    assert out.returncode == 0, out.stderr
    assert "14 trials to compute" in out.stdout
    # uniform with 30 of 1000 takes 31 steps: 7 samplers * 50 samples * (10 + 31) calls
    assert f"{7 * 50 * (10 + 31):,} network evaluations" in out.stdout
    assert not (tmp_path / "r").exists()
    as_json = bench(
        *SWEEP[:3], *SWEEP[5:7], "--steps", "10", "--dry-run", "--json", "--results", tmp_path / "r"
    )
    assert json.loads(as_json.stdout)["evaluations"] == 7 * 1000 * 10


def test_all_is_the_papers_rows_and_the_fast_ones_each_at_the_steps_it_is_made_for(tmp_path):
    out = bench("run", "--model", MODEL, "--n", "20", "--dry-run", "--results", tmp_path / "r")
    assert out.returncode == 0, out.stderr
    (told,) = [line for line in out.stderr.splitlines() if line.startswith("left out")]
    assert told.startswith("left out at S=1000, being made for fewer steps: heun, ")
    planned = {line.split()[0] for line in out.stdout.splitlines() if "network evaluations  " in line}
    fast = [spec for spec in FAST.samplers if get_sampler(spec).most_steps]
    assert len(fast) == 12  # DDIM at eta 0 and 1 are rows of the paper's
    rows = [*map(get_sampler, PAPER.samplers), *map(get_sampler, fast)]
    expected = {f"{row.spec}@{s}" for row in rows for s in PAPER.steps if s <= (row.most_steps or s)}
    assert planned == expected
    asked = bench("run", "--model", MODEL, "--n", "20", "--steps", "200", "--dry-run", "--results", tmp_path)
    assert "left out" not in asked.stderr
    assert f"{get_sampler('dpmpp-2m').spec}@200" in asked.stdout


def test_list_names_everything_with_its_origin():
    out = bench("list", "--json")
    assert out.returncode == 0, out.stderr
    lists = json.loads(out.stdout)
    assert {"ddim", "ddpm", "sigma-hat"} <= {entry["name"] for entry in lists["samplers"]}
    assert {"digits", "exact-gaussian", "exact-digits"} <= {entry["name"] for entry in lists["models"]}
    assert {"fd_digits", "fd_pixels", "fid"} <= {entry["name"] for entry in lists["metrics"]}
    assert {"serial", "processes", "ray", "submitit"} == {entry["name"] for entry in lists["executors"]}
    assert lists["failures"] == []


USAGE = [
    (["run", "--samplers", "dimm"], "unknown sampler 'dimm'; did you mean ddim"),
    (["run", "--samplers", "ddim:eta=-1"], "ddim:eta must be at least 0, got -1"),
    (["run", "--steps", "2000"], "the number of steps must be from 1 to T=1000, got 2000"),
    (["run", "--steps", "0"], "every number of steps must be at least 1, got 0"),
    (["run", "--steps", "ten"], "--steps takes whole numbers"),
    (["run", "--n", "0"], "--n must be at least 2 samples, got 0"),
    (["run", "--n", "many"], "invalid int value: 'many'"),
    (["run", "--seed", "-1"], "--seed must not be negative"),
    (["run", "--batch", "0"], "--batch must be at least 1"),
    (["run", "--model", "exact-gausian"], "unknown model 'exact-gausian'; did you mean exact-gaussian"),
    (["run", "--model", "nowhere.py:make"], "model file nowhere.py does not exist"),
    (["run", "--spacing", "quadratc"], "unknown spacing 'quadratc'; did you mean quadratic"),
    (["run", "--metrics", "fd_pixel"], "unknown metric 'fd_pixel'; did you mean fd_pixels"),
    (["run", "--device", "quantum"], "unknown device 'quantum'"),
    (["run", "--device", "cuda:99"], "device 'cuda:99' is not there"),
    (["run", "--executor", "serail"], "unknown executor 'serail'; did you mean serial"),
    (
        ["run", "--executor", "nonsense", "--dry-run"],
        "unknown executor 'nonsense'; known: processes, ray, serial, submitit",
    ),
    (["run", "--executor", "procesess", "--dry-run"], "did you mean processes?"),
    (["run", "--executor", "processes:n=2", "--dry-run"], "executor 'processes' takes no options, got n"),
    (["run", "--executor", "ray:adress=a", "--dry-run"], "takes address and gpus_per_worker, got adress"),
    (["run", "--executer", "serial", "--dry-run"], "unknown option --executer; did you mean --executor?"),
    (["run", "--plugin", "nowhere.py"], "plugin file nowhere.py does not exist"),
    (["run", "--sampler", "ddim"], "unknown option --sampler; did you mean --samplers?"),
    (["rnu"], "unknown verb 'rnu'; did you mean run"),
    (["show", "ddim@10", "--results", "nowhere"], "no records in nowhere"),
    (["table", "--results", "nowhere"], "no records in nowhere"),
    (["train", "digit"], "unknown training preset 'digit'; did you mean digits"),
]


@pytest.mark.parametrize(("arguments", "sentence"), USAGE, ids=[" ".join(a) for a, _ in USAGE])
def test_bad_input_gets_one_sentence_and_status_two(arguments, sentence, tmp_path, monkeypatch, capsys):
    if arguments[0] == "run" and "--model" not in arguments:
        arguments = [*arguments, "--model", MODEL]
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert sentence in line
    assert "--dry-run" not in arguments or not (tmp_path / "results" / "records").exists()


def test_results_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    out = bench("run", "--model", MODEL, "--n", "10", "--steps", "2", "--results", tmp_path / "file")
    assert out.returncode == 1
    assert out.stderr.startswith(f"error: cannot write results to {tmp_path / 'file'}: ")
    assert "choose --results DIR" in out.stderr


def test_a_truncated_record_is_named_and_costs_its_own_row(swept, tmp_path):
    import shutil

    shutil.copytree(swept[0], tmp_path / "r")
    path = next((tmp_path / "r" / "records").glob("*eta=0.5-S10*.json"))
    path.write_text(path.read_text()[:200])
    out = bench("table", "--results", tmp_path / "r")
    assert out.returncode == 1
    assert f"record {path} cannot be read (it is truncated" in out.stderr
    assert "ddim eta=0.2" in out.stdout
    again = bench(*SWEEP, tmp_path / "r")
    assert again.returncode == 0
    assert "13 of 14 trials are there already" in again.stderr


def test_a_plugin_with_a_syntax_error_costs_its_own_rows(tmp_path):
    plugin = tmp_path / "bad.py"
    plugin.write_text("def broken(:\n")
    out = bench(*SMALL, tmp_path / "r", "--plugin", plugin)
    assert out.returncode == 1
    assert f"plugin {plugin} failed at import: SyntaxError" in out.stderr
    assert list(load_results(tmp_path / "r").status) == ["done", "done"]
    strict = bench("run", "--model", MODEL, "--plugin", plugin, "--results", tmp_path / "s", "--strict")
    assert strict.returncode == 1
    assert not (tmp_path / "s").exists()


def test_a_plugin_that_takes_a_name_does_not_get_it(tmp_path):
    plugin = tmp_path / "thief.py"
    plugin.write_text(
        "from bench import hookimpl, sampler\n"
        "@sampler\ndef ddim(model, x, grid, noise):\n    yield x\n"
        "@hookimpl\ndef bench_samplers():\n    return [ddim]\n"
    )
    out = bench(*SMALL, tmp_path / "r", "--plugin", plugin)
    assert out.returncode == 1
    assert "sampler 'ddim' is already registered by sampler-bench; choose another name" in out.stderr
    assert load_results(tmp_path / "r").network_calls.iloc[0] == 2


def test_a_misspelt_hook_is_named(tmp_path):
    plugin = tmp_path / "typo.py"
    plugin.write_text("from bench import hookimpl\n@hookimpl\ndef bench_sampler():\n    return []\n")
    out = bench("list", "--plugin", plugin)
    assert out.returncode == 1
    assert "unknown hook 'bench_sampler'; did you mean bench_samplers" in out.stderr


def test_no_verb_prints_the_verbs():
    out = bench()
    assert out.returncode == 2
    for verb in ("run", "table", "plot", "show", "status", "list", "check", "train"):
        assert f"  {verb} " in out.stdout


def test_interrupt_keeps_what_is_done(tmp_path):
    import signal
    import time

    options = ["--model", "exact-mixture", "--samplers", "ddim", "--steps", "10,1000", "--n", "2000"]
    command = [sys.executable, "-m", "bench", "run", *options, "--batch", "100", "--results", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.rglob("*.npz"))) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "what is done is kept" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.rglob("*.npz"))
