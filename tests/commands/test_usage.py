"""The command line before any work: what help names is what there is, and it needs no torch to say so."""

import shlex
import subprocess
import sys

import pytest

from bench.commands import usage
from bench.commands.examples import EXAMPLES
from bench.commands.export import FORMATS as EXPORT_FORMATS
from bench.commands.fetch import FILES
from bench.commands.parser import command_parser
from bench.commands.plot import FORMATS as PLOT_FORMATS
from bench.commands.train import APART
from bench.commands.usage import VERBS
from bench.device.precision import PRECISIONS
from bench.drawing.style import THEMES
from bench.errors import UsageError
from bench.nll.request import DEFAULT_N, VARIANCES
from bench.published.presets import PRESETS
from bench.report.tables.sheets import FORMATS as TABLE_FORMATS
from bench.training import RECIPES

HEAVY = ("torch", "pandas", "matplotlib", "numpy", "rich")


def test_what_can_be_chosen_is_what_there_is():
    assert tuple(PRECISIONS) == usage.PRECISIONS
    assert tuple(PRESETS) == usage.PRESETS
    assert tuple(RECIPES) == usage.RECIPES
    assert tuple(APART) == usage.APART
    assert usage.VARIANCES == VARIANCES
    assert set(usage.THEMES) <= set(THEMES)
    assert usage.PLOT_FORMATS == PLOT_FORMATS
    assert tuple(TABLE_FORMATS) == usage.TABLE_FORMATS
    assert tuple(EXPORT_FORMATS) == usage.EXPORT_FORMATS
    assert tuple(FILES) == usage.WEIGHT_FILES
    assert usage.BOUND_IMAGES == DEFAULT_N


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_describes_itself(verb):
    text = command_parser(verb).format_help()
    assert text.startswith(f"usage: sampler-bench {verb}")
    assert VERBS[verb].declare.__doc__.split("\n")[0] in text


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_examples_that_it_takes(verb):
    assert EXAMPLES[verb]
    for command, what in EXAMPLES[verb]:
        first, *arguments = shlex.split(command)
        assert first == verb
        command_parser(verb).parse_args(arguments)
        assert f"{what}\n    sampler-bench {command}\n" in command_parser(verb).format_help()


def test_there_are_examples_of_nothing_else():
    assert set(EXAMPLES) == set(VERBS)


def brings(arguments):
    """The heavy packages that a command imports, its exit status and what it says on standard error."""
    code = f"""
import sys
from bench.commands.main import main
try:
    status = main({arguments!r})
except SystemExit as stop:
    status = stop.code
print(status, *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    *said, last = done.stderr.splitlines()
    status, *names = last.split()
    return names, int(status), said


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["nll", "--help"], ["completion", "zsh"]]
)
def test_help_needs_no_torch(arguments):
    assert brings(arguments) == ([], 0, [])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rum"], "unknown verb 'rum'; did you mean run?"),
        (["run", "--stepz", "3"], "unknown option --stepz; did you mean --steps?"),
        (["plot", "--format", "gif"], "argument --format: invalid choice: 'gif'"),
        (["merge"], "the following arguments are required"),
        (["merge", "--resultz", "a"], "unknown option --resultz; did you mean --results?"),
        (["run", "-steps", "3"], "unknown option -steps; did you mean --steps?"),
        (["run", "--quiett=1"], "unknown option --quiett; did you mean --quiet?"),
        (["table", "--xyzzy"], "unknown option --xyzzy; see `sampler-bench table --help`"),
        (["show", "a", "b"], "unexpected argument 'b'; see `sampler-bench show --help`"),
        (["table", "-q"], "unknown option -q; see"),
        (["run", "-q", "-v"], "-q and -v exclude each other"),
    ],
)
def test_a_usage_error_needs_no_torch(arguments, says):
    names, status, said = brings(arguments)
    assert (names, status) == ([], 2)
    assert says in said[0]


@pytest.mark.parametrize("verb", VERBS)
def test_a_mistyped_option_is_answered_with_the_one_that_is_meant(verb):
    parser = command_parser(verb)
    known = [one for one in parser._option_string_actions if one.startswith("--") and one != "--n"]
    typos = {f"{option[:-1]}{option[-2:]}": option for option in known}  # a letter twice
    typos |= {f"{option[:-2]}{option[-1]}{option[-2]}": option for option in known}  # two in the wrong order
    for typo, meant in typos.items():
        if typo not in known:
            with pytest.raises(UsageError, match=f"unknown option {typo}; did you mean {meant}\\?$"):
                parser.parse_args([f"{typo}=1"])
