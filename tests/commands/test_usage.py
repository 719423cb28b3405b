"""The command line before any work: what help names is what there is, and it needs no torch to say so."""

import subprocess
import sys

import pytest

from bench.commands import usage
from bench.commands.export import FORMATS as EXPORT_FORMATS
from bench.commands.fetch import FILES
from bench.commands.main import command_parser, main
from bench.commands.plot import FORMATS as PLOT_FORMATS
from bench.commands.usage import VERBS
from bench.device.precision import PRECISIONS
from bench.drawing.style import THEMES
from bench.nll.request import DEFAULT_N, VARIANCES
from bench.published.presets import PRESETS
from bench.report.tables.sheets import FORMATS as TABLE_FORMATS
from bench.training import RECIPES

HEAVY = ("torch", "pandas", "matplotlib", "numpy", "rich")


def test_what_can_be_chosen_is_what_there_is():
    assert tuple(PRECISIONS) == usage.PRECISIONS
    assert tuple(PRESETS) == usage.PRESETS
    assert tuple(RECIPES) == usage.RECIPES
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
    assert text.startswith(f"usage: python -m bench {verb}")
    assert VERBS[verb].declare.__doc__.split("\n")[0] in text


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
    "arguments", [["--help"], ["run", "--help"], ["nll", "--help"], ["completion", "zsh"]]
)
def test_help_needs_no_torch(arguments):
    assert brings(arguments) == ([], 0, [])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rum"], "unknown verb 'rum'; did you mean run?"),
        (["run", "--stepz", "3"], "unrecognized arguments: --stepz 3"),
        (["plot", "--format", "gif"], "argument --format: invalid choice: 'gif'"),
        (["merge"], "the following arguments are required"),
    ],
)
def test_a_usage_error_needs_no_torch(arguments, says):
    names, status, said = brings(arguments)
    assert (names, status) == ([], 2)
    assert says in said[0]


def test_a_shell_completes_verbs_and_options(tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    asks = (
        f"source {script}; complete_it() {{ COMP_WORDS=($@); COMP_CWORD=$(($# - 1)); _shtab_sampler_bench; "
        'echo "${COMPREPLY[@]}"; }; complete_it sampler-bench nl; complete_it sampler-bench run --keep'
    )
    done = subprocess.run(["bash", "-c", asks], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["nll", "--keep-features"]
