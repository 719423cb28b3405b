"""What is given is used or refused in a sentence: never passed over, replaced or cut without a word."""

import io
import json
import sys

import pytest
from support.commands import bench as run_bench

import bench
from bench.commands.main import main
from bench.commands.options import escaped, parse_spacings, print_json
from bench.diffusion.spacing import check_spacing
from bench.plugins.lookup import get_card
from models.spec import split_spec


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["run", "--metrics", ""], "--metrics"),
        (["run", "--spacings="], "--spacings"),
        (["run", "--samplers", ""], "--samplers"),
        (["run", "--samplers", "ddim", ""], "an argument"),
        (["run", "--calls", " "], "--calls"),
        (["run", "--model", ""], "--model"),
        (["nll", "--variance="], "--variance"),
        (["table", "--results", ""], "--results"),
        (["score", "", "--reference", "digits"], "an argument"),
    ],
)
def test_an_empty_value_is_not_the_default(capsys, arguments, what):
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {what} is given nothing; leave it out or give a value\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--samplers", "ddim:eta=0.3,eta=0.5"],
        ["check", "ddim:eta=0.3,eta=0.5"],
        ["equivalent", "ddim", "ddim:eta=0.3,clip=x0,eta=0.3"],
        ["run", "--samplers", "ddim", "--spacings", "edm:rho=5,rho=7"],
        ["run", "--samplers", "ddim", "--model", "digits:guidance=1,guidance=2"],
        ["run", "--samplers", "ddim", "--model", "mine.py:make:guidance=1,guidance=2"],
        ["run", "--samplers", "ddim", "--model", "x.pt:T=1000,schedule=cosine,T=4000"],
    ],
)
def test_an_option_that_is_given_twice_is_refused(capsys, arguments):
    assert main(arguments) == 2
    assert "is given 2 times; give it once" in capsys.readouterr().err


def test_from_python_too():
    for load in (get_card, split_spec):
        with pytest.raises(bench.UsageError, match="T is given 2 times"):
            load("x.pt:T=1000,T=4000")


@pytest.mark.parametrize(
    ("spacing", "sentence"),
    [
        ("edm:rho=5,6", "spacing 'edm:rho=5,6': rho must be a number, got '5,6'"),
        ("edm:sigma-max=high", "spacing 'edm:sigma-max=high': sigma-max must be a number, got 'high'"),
        ("karras:rho=", "spacing 'karras:rho=': rho must be a number, got ''"),
        ("edm:rh=5", "unknown option of spacing edm 'rh'; did you mean rho?"),
        ("uniform:rho=5", "unknown option of spacing uniform 'rho'; known: stop"),
        ("edm:sigma_max=4,sigma-max=5", "sigma_max is given 2 times"),
    ],
)
def test_options_of_a_time_grid_are_what_its_rule_takes(spacing, sentence):
    with pytest.raises(bench.UsageError) as refused:
        parse_spacings(spacing)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    "spacing",
    ["edm:rho=5,sigma_max=40,stop=true", "ays:model=sdxl", "999,500,0", "sigma:9,1"],
)
def test_what_a_rule_takes_is_taken(spacing):
    check_spacing(spacing)
    assert parse_spacings(spacing) == (spacing,)


@pytest.mark.parametrize(
    ("spacing", "name"),
    [
        ("edm:rho=0", "rho"),
        ("edm:rho=-1", "rho"),
        ("edm:rho=nan", "rho"),
        ("edm:rho=inf", "rho"),
        ("edm:rho=1e-4", "rho"),
        ("edm:rho=5,6", "rho"),
        ("karras:rho=0", "rho"),
        ("edm:sigma_min=-1", "sigma_min"),
        ("edm:sigma_max=0", "sigma_max"),
        ("beta:alpha=0", "alpha"),
        ("beta:beta=-2", "beta"),
    ],
)
def test_numbers_that_no_grid_has_are_refused_by_the_rule(spacing, name):
    with pytest.raises(bench.UsageError, match=rf"{name} of spacing .* (positive number|too small), got"):
        bench.make_grid(bench.NoiseSchedule.linear(), 10, spacing)


def test_equivalent_tells_another_number_of_steps(capsys):
    arguments = ["equivalent", "ddim", "dpmpp:order=1", "--spacing", "uniform", "--steps"]
    assert main([*arguments, "3"]) == 0
    assert "S=3 (uniform takes 4 steps): same" in capsys.readouterr().out
    assert main([*arguments, "5"]) == 0
    assert "S=5: same" in capsys.readouterr().out
    assert main([*arguments, "3", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["steps"], told["taken"]) == (3, 4)


def test_the_status_of_a_folder_that_is_not_there_is_an_error(capsys, tmp_path):
    assert main(["status", "--results", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["status", "--results", str(tmp_path)]) == 0


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "latin-1", "utf-8"])
def test_json_is_the_same_on_any_console(monkeypatch, encoding):
    rows = [{"einé 測試 😀": 'a "quoted" ü', "plain": 1.5}]
    held = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(held, encoding=encoding, errors="replace"))
    print_json(rows)
    sys.stdout.flush()
    assert json.loads(held.getvalue().decode(encoding)) == rows
    assert (escaped("é") == "é") is (encoding != "ascii")


BAD = ("import bench\nraise ValueError('first\\nsecond')\n", "failed at import: ValueError: first second")
PLUGIN_VERBS = {
    "stats": ("stats", "digits-held-out", "--metric", "fd_pixels"),
    "moments": ("moments", "--model", "exact-gaussian", "--steps", "2", "--n", "4", "--out", "m.json"),
    "check-model": ("check-model", "digits", "--n", "4"),
    "dry run": ("run", "--model", "exact-gaussian", "--samplers", "ddim", "--steps", "2", "--dry-run"),
    "check": ("check", "ddim"),
    "speed": ("speed", "--model", "exact-gaussian", "--samplers", "ddim", "--batch", "1", "--turns", "1"),
}


@pytest.mark.parametrize("verb", PLUGIN_VERBS)
def test_every_verb_names_a_plugin_that_failed(tmp_path, verb):
    (tmp_path / "bad.py").write_text(BAD[0])
    given = [str(tmp_path / one) if one == "m.json" else one for one in PLUGIN_VERBS[verb]]
    done = run_bench(*given, "--plugin", tmp_path / "bad.py")
    assert done.returncode == 1, done.stderr
    assert done.stdout
    assert done.stderr.count(BAD[1]) == 1
