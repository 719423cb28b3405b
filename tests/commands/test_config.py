"""Options in a file: the command line wins, and a mistake is one sentence."""

import tomllib
from pathlib import Path

import pytest
from support.commands import bench as run_bench

import bench
from bench.commands.config import APART, chosen_arguments, parse_options, read_values, save_config
from bench.commands.main import main
from bench.commands.parser import command_parser
from bench.commands.usage import VERBS

ALL = """
samplers = ["ddim:eta=0.5", "dpmpp-2m"]
steps = [5, 10]
n = 300
until_tie = 0.02
guidance = [1, 2.5]
metrics = "fd_pixels,kid_pixels"
plugin = ["a.py", "b.py"]
results = "out"
strict = true
isolate = false
precision = "float32"
"""


@pytest.fixture
def parser():
    return command_parser("run")


def written(tmp_path, text):
    path = tmp_path / "sweep.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_stands_for_the_options_it_holds(parser, tmp_path):
    path = written(tmp_path, ALL)
    asked = (
        "--samplers ddim:eta=0.5 dpmpp-2m --steps 5,10 --n 300 --until-tie 0.02 --guidance 1 2.5 --metrics"
    )
    asked += " fd_pixels,kid_pixels --plugin a.py --plugin b.py --results out --strict --no-isolate"
    asked += " --precision float32"
    expected = vars(parser.parse_args(asked.split()))
    assert vars(parse_options(parser, ["--config", str(path)])) == {**expected, "config": path}


def test_the_command_line_wins(parser, tmp_path):
    path = written(tmp_path, ALL)
    options = parse_options(
        parser,
        ["--config", str(path), "--n", "1000", "--plugin", "c.py", "--isolate", "--results", "results"],
    )
    assert options.n == 1000  # which is what the file would change, and the default too
    assert [str(one) for one in options.plugin] == ["c.py"]
    assert options.isolate is True
    assert str(options.results) == "results"
    assert options.steps == "5,10"


def test_an_option_that_excludes_the_files_takes_its_place(parser, tmp_path):
    path = written(tmp_path, "steps = 10\n")
    options = parse_options(parser, ["--config", str(path), "--calls", "20"])
    assert (options.steps, options.calls) == (None, "20")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("step = [10]", "unknown key 'step'; did you mean steps?"),
        ("batch = 'x'", "batch must be a whole number or \"auto\", got 'x'"),
        ("batch = [1]", 'batch must be a whole number or "auto", got [1]'),
        ("batch = 1.5", 'batch must be a whole number or "auto", got 1.5'),
        (f"until-tie = 1{'0' * 400}", "until-tie must be a number, got 1000"),
        (f"n = 1{'0' * 5000}", "is not TOML"),
        (f"n = {'[' * 5000}", "is not TOML"),
        ("results = ''", "results is given nothing; leave it out or give a value"),
        ('results = "a\\u0000b"', "results must be a path in quotes, got 'a\\x00b'"),
        ("model = ' '", "model is given nothing"),
        ("samplers = ['ddim', '']", "samplers is given nothing"),
        ("zzz = 1", "unknown key 'zzz'; see `sampler-bench run --help`"),
        ("config = 'b.toml'", "unknown key 'config'"),
        ("n = '20'", "n must be a whole number, got '20'"),
        ("n = 20.5", "n must be a whole number, got 20.5"),
        ("n = [20]", "n must be a whole number, got [20]"),
        ("n = true", "n must be a whole number, got True"),
        ("until-tie = 'little'", "until-tie must be a number, got 'little'"),
        ("strict = 'yes'", "strict must be true or false, got 'yes'"),
        ("isolate = 1", "isolate must be true or false, got 1"),
        ("samplers = [1, true]", "samplers must be text in quotes or a number, got True"),
        ("samplers = []", "samplers must be text in quotes or a number, got []"),
        ("precision = 'float23'", "precision cannot be 'float23'; did you mean float32?"),
        ("results = 3", "results must be a path in quotes, got 3"),
        ("steps = 10\ncalls = 20", "steps and calls exclude each other"),
        ("spacing = 'uniform'\nspacings = 'logsnr'", "spacing is given twice"),
        ("[run]\nn = 20", "unknown key 'run'"),
        ("n = ", "is not TOML"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, capsys, text, sentence):
    path = written(tmp_path, text)
    assert main(["run", "--config", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert str(path) in line
    assert sentence in line


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert main(["run", "--config", str(tmp_path / "no.toml")]) == 2
    assert "cannot be read: No such file" in capsys.readouterr().err


def test_what_is_saved_is_read_again(parser, tmp_path):
    asked = [
        "--samplers",
        'we"ird\\:\x7f\té',
        "ddim",
        "--steps",
        "5,10",
        "--until-tie",
        "1e-05",
        "--no-isolate",
    ]
    asked += ["--guidance", "1", "2.5", "--plugin", "a b.py", "--plugin", "c.py", "--n", "7", "--dry-run"]
    options = parser.parse_args(asked)
    saved = tmp_path / "saved.toml"
    save_config(parser, options, saved)
    assert "dry-run" not in tomllib.loads(saved.read_text(encoding="utf-8"))
    again = parse_options(parser, ["--config", str(saved), "--dry-run"])
    assert {**vars(again), "config": None} == vars(options)
    told = parser.parse_args([*chosen_arguments(parser, options), "--dry-run"])
    assert vars(told) == vars(options)


def one_value(action):
    """A value on the command line that an option takes, and is not its default."""
    if action.nargs == 0:
        return []
    if action.choices:
        return [str(next(one for one in action.choices if one != action.default))]
    return ["a=b" if action.type in (None, Path) else "12345"]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if "config" in command_parser(verb).named()])
def test_every_option_of_every_verb_is_read_as_it_was_saved(verb, tmp_path):
    parser = command_parser(verb)
    for place, action in enumerate(parser._actions):
        if action.dest in APART or not action.option_strings:
            continue
        options = parser.parse_args([action.option_strings[-1], *one_value(action)])
        saved = tmp_path / f"{place}.toml"
        save_config(parser, options, saved)
        assert saved.read_text(encoding="utf-8")
        assert vars(parse_options(parser, ["--config", str(saved)])) == {**vars(options), "config": saved}


@pytest.mark.parametrize("given", ["auto", "10"])
def test_a_batch_is_a_number_or_left_to_the_program(parser, tmp_path, given):
    saved = tmp_path / "saved.toml"
    save_config(parser, parser.parse_args(["--batch", given]), saved)
    assert read_values(parser, saved) == {"batch": parser.parse_args(["--batch", given]).batch}


def test_what_is_there_is_not_written_over(parser, tmp_path):
    saved = written(tmp_path, "n = 20\n")
    save_config(parser, parser.parse_args(["--n", "20"]), saved)
    with pytest.raises(bench.UsageError, match="holds other options"):
        save_config(parser, parser.parse_args(["--n", "30"]), saved)
    assert read_values(parser, saved) == {"n": 20}


def test_a_run_from_a_file_leaves_the_whole_command_in_its_records(tmp_path):
    path = written(tmp_path, "model = 'exact-gaussian'\nsamplers = 'ddim'\nsteps = 2\nn = 20\nseed = 3\n")
    results = tmp_path / "r"
    done = run_bench("run", "--config", path, "--n", "30", "--results", results, "-q")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (command,) = set(bench.load_results(results).command)
    options = "--samplers ddim --steps 2 --n 30 --model exact-gaussian --seed 3"
    assert command == f"sampler-bench run {options} --results {results}"
