"""``completion``: the scripts name all there is, go where each shell looks, and complete in a real shell."""

import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest
import shtab

from bench.commands import completion
from bench.commands.main import main
from bench.commands.parser import command_parser
from bench.commands.usage import SHELLS, VERBS

PLACES = {
    "bash": ".local/share/bash-completion/completions/sampler-bench",
    "zsh": ".local/share/sampler-bench/zsh/_sampler-bench",
    "fish": ".config/fish/completions/sampler-bench.fish",
    "tcsh": ".local/share/sampler-bench/completion.tcsh",
}
"""Where each shell's script goes, below the home folder."""

LINES = {
    "bash": (".bashrc", '. "{script}"'),
    "zsh": (".zshrc", 'fpath=("{folder}" $fpath); autoload -Uz compinit && compinit'),
    "tcsh": (".tcshrc", 'source "{script}"'),
}
"""What has to stand in a shell's own file; fish looks where its script is."""


@pytest.fixture
def home(monkeypatch, tmp_path):
    """An empty home folder, on a machine without the package bash-completion."""
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setattr(completion, "BASH_COMPLETION", ())
    return folder


def installed(home, shell):
    """The files in a home folder after the script was put there, by their paths below it."""
    assert main(["completion", shell, "--install"]) == 0
    return {
        str(path.relative_to(home)): path.read_text(encoding="utf-8")
        for path in home.rglob("*")
        if path.is_file()
    }


def test_there_is_a_script_for_every_shell():
    assert set(PLACES) == set(SHELLS) <= set(shtab.SUPPORTED_SHELLS)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_goes_where_its_shell_looks(shell, home, capsys):
    files = installed(home, shell)
    script = home / PLACES[shell]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(script)
    assert lines[-1] == f"a new {shell} completes sampler-bench"
    assert files.pop(PLACES[shell]) == f"{completion.script_of(shell)}\n"
    if shell in LINES:
        name, line = LINES[shell]
        line = line.format(script=script, folder=script.parent)
        assert files.pop(name) == f"{line}\n"
        assert lines[1] == f"{home / name}: added `{line}`"
    assert files == {}
    assert installed(home, shell) == installed(home, shell)  # nothing is added twice
    assert "added" not in capsys.readouterr().out


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_names_every_verb_and_option(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for verb in VERBS:
        assert re.search(rf"\b{verb}\b", script)
        for action in command_parser(verb)._actions:
            for option in (one for one in action.option_strings if one.startswith("--")):
                assert re.search(rf"(--|[\s(]){option[2:]}(?![\w-])", script), (verb, option)


def test_a_users_own_file_is_added_to_and_never_rewritten(home):
    (home / ".bashrc").write_text("alias ll='ls -l'")  # without an end of line
    files = installed(home, "bash")
    assert files[".bashrc"].splitlines() == ["alias ll='ls -l'", f'. "{home / PLACES["bash"]}"']


def test_bash_finds_the_script_by_itself_where_the_package_is(home, monkeypatch, tmp_path):
    package = tmp_path / "bash_completion"
    package.write_text("")
    monkeypatch.setattr(completion, "BASH_COMPLETION", (str(package),))
    assert list(installed(home, "bash")) == [PLACES["bash"]]


def test_variables_move_the_places(home, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ZDOTDIR", str(tmp_path / "zsh"))
    (tmp_path / "zsh").mkdir()
    for shell in ("bash", "zsh", "fish"):
        main(["completion", shell, "--install"])
    for place in (
        "data/bash-completion/completions/sampler-bench",
        "data/sampler-bench/zsh/_sampler-bench",
        "config/fish/completions/sampler-bench.fish",
        "zsh/.zshrc",
    ):
        assert (tmp_path / place).is_file()
    assert [path.name for path in home.iterdir()] == [".bashrc"]


def test_the_users_shell_is_taken_where_none_is_named(home, monkeypatch, capsys):
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert main(["completion", "--install"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(home / PLACES["fish"])


@pytest.mark.parametrize(("shell", "says"), [("/bin/ksh", "$SHELL names ksh"), ("", "$SHELL names no shell")])
def test_a_shell_without_a_script_is_refused(shell, says, home, monkeypatch, capsys):
    monkeypatch.setenv("SHELL", shell)
    assert main(["completion", "--install"]) == 2
    assert capsys.readouterr().err == f"error: {says}; say which is meant: bash, zsh, fish, tcsh\n"
    assert list(home.iterdir()) == []


def test_a_file_in_the_way_is_one_sentence(home, capsys):
    (home / ".local").write_text("")
    assert main(["completion", "bash", "--install"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {home / PLACES['bash']} cannot be written: ")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_reads_its_script(shell, home):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine")
    installed(home, shell)
    done = subprocess.run([shell, "-n", home / PLACES[shell]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not on this machine")
@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sampler-bench nl\t", ["nll"]),
        ("sampler-bench run --keep\t", ["run", "--keep-features"]),
        ("sampler-bench run --precision bf\t --prec\t", ["run", "--precision", "bfloat16", "--precision"]),
        ("sampler-bench run --thr\t", ["run", "--threads"]),
        ("sampler-bench table --results my\t", ["table", "--results", "my-results/"]),
        ("sampler-bench run --plugin min\t", ["run", "--plugin", "mine.py"]),
    ],
)
def test_a_real_bash_completes_what_is_typed(typed, meant, home, tmp_path):
    """In a terminal: the command that the key makes of it is the one that is started."""
    installed(home, "bash")
    (home / "my-results").mkdir()
    (home / "mine.py").write_text("")
    with (home / ".bashrc").open("a") as file:
        file.write("PS1='READY>'; bind 'set bell-style none'; bind 'set enable-bracketed-paste off'\n")
    program = tmp_path / "bin" / "sampler-bench"
    program.parent.mkdir()
    got, part = tmp_path / "got", tmp_path / "part"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {part}\nmv {part} {got}\n")
    program.chmod(0o755)
    said = typed_into_bash(f"{typed}\n", home, program.parent, until=got)
    assert got.exists(), said
    assert got.read_text().splitlines() == meant


def typed_into_bash(text, home, programs, until):
    """What an interactive bash shows in which something is typed, until a file is there; a minute at most."""
    ours, its = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--rcfile", home / ".bashrc", "-i"],
        cwd=home,
        env={"HOME": str(home), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "TERM": "dumb"},
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    shown, sent, end = b"", False, time.monotonic() + 60
    try:
        while time.monotonic() < end and shell.poll() is None and not until.exists():
            if select.select([ours], [], [], 0.1)[0]:
                shown += os.read(ours, 4096)
            if not sent and b"READY>" in shown:
                os.write(ours, text.encode())
                sent = True
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    return shown.decode(errors="replace")
