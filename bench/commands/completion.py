"""Print a script that completes commands in a shell."""

from __future__ import annotations

import argparse

import shtab

from bench.commands.usage import VERBS

PROGRAM = "sampler-bench"


def execute(options: argparse.Namespace) -> int:
    """Print the script."""
    parser = argparse.ArgumentParser(prog=PROGRAM)
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers(dest="verb")
    for name, verb in VERBS.items():
        verb.declare(verbs.add_parser(name, help=verb.summary))
    complete_paths(parser)
    print(shtab.complete(parser, options.shell))
    return 0


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
