"""Print a script that completes commands in a shell, or put it where the shell finds it."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import shtab

from bench.commands.parser import add_options
from bench.commands.usage import PROGRAM, SHELLS, VERBS
from bench.errors import BenchError, UsageError
from bench.files.atomic import write_text

BASH_COMPLETION = (
    "/usr/share/bash-completion/bash_completion",
    "/etc/bash_completion",
    "/usr/local/share/bash-completion/bash_completion",
    "/opt/homebrew/etc/profile.d/bash_completion.sh",
)
"""Where systems keep the package that loads a user's completions when they are wanted."""


@dataclass(frozen=True)
class Place:
    """Where a shell's script goes.

    Attributes:
        script: the file.
        startup: the shell's own file, that every new shell reads.
        line: what has to stand in it; empty where the shell finds the script by itself.
    """

    script: Path
    startup: Path
    line: str


def execute(options: argparse.Namespace) -> int:
    """Print the script, or write it and say where."""
    shell = options.shell or _own_shell()
    if not options.install:
        print(script_of(shell))
        return 0
    place = place_of(shell)
    _write(place.script, script_of(shell))
    print(place.script)
    if place.line and _add_line(place.startup, place.line):
        print(f"{place.startup}: added `{place.line}`")
    print(f"a new {shell} completes {PROGRAM}")
    return 0


def script_of(shell: str) -> str:
    """Return the script that completes verbs and options in a shell."""
    parser = argparse.ArgumentParser(prog=PROGRAM)
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers(dest="verb")
    for name, verb in VERBS.items():
        add_options(verbs.add_parser(name, help=verb.summary), name)
    complete_paths(parser)
    return shtab.complete(parser, shell)


def complete_paths(parser: argparse.ArgumentParser) -> None:
    """Let every option that takes a path complete files, and one that takes a folder complete folders."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                complete_paths(each)
        elif action.metavar in ("FILE", "IMAGES"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in ("DIR", "OUT"):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]


def place_of(shell: str) -> Place:
    """Return where a shell's script goes, below the user's own folders."""
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    if shell == "bash":
        script = data / "bash-completion" / "completions" / PROGRAM
        loads = any(Path(one).is_file() for one in BASH_COMPLETION)
        return Place(script, home / ".bashrc", "" if loads else f'. "{script}"')
    if shell == "zsh":
        folder = data / PROGRAM / "zsh"
        line = f'fpath=("{folder}" $fpath); autoload -Uz compinit && compinit'
        return Place(folder / f"_{PROGRAM}", Path(os.environ.get("ZDOTDIR") or home) / ".zshrc", line)
    if shell == "fish":
        settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish"
        return Place(settings / "completions" / f"{PROGRAM}.fish", settings / "config.fish", "")
    script = data / PROGRAM / "completion.tcsh"
    return Place(script, home / ".tcshrc", f'source "{script}"')


def _own_shell() -> str:
    """Return the shell of the user.

    Raises:
        UsageError: if it is not known, or none of those there are scripts for.
    """
    name = Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        told = f"$SHELL names {name}" if name else "$SHELL names no shell"
        raise UsageError(f"{told}; say which is meant: {', '.join(SHELLS)}")
    return name


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, f"{text}\n")
    except OSError as error:
        raise BenchError(f"{path} cannot be written: {error.strerror}") from None


def _add_line(path: Path, line: str) -> bool:
    """Add a line to the end of a file where it is missing, and return whether it was."""
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if line in before.splitlines():
            return False
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{'' if before.endswith(chr(10)) or not before else chr(10)}{line}\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read and added to ({error}); add to it: {line}") from None
    return True
