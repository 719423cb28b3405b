"""The parser of a verb's options: bad input gets one sentence, with the nearest of what there is."""

from __future__ import annotations

import argparse
import difflib
import inspect
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from bench.commands.examples import EXAMPLES
from bench.commands.usage import PROGRAM, VERBS, add_threads
from bench.errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser that answers bad input with one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise the sentence instead of printing the usage."""
        raise UsageError(f"{message[0].lower()}{message[1:]}; see `{self.prog} --help`")

    def named(self) -> dict[str, argparse.Action]:
        """Return the options by their names in Python: ``--keep-features`` is ``keep_features``."""
        return {
            option.removeprefix("--").replace("-", "_"): action
            for action in self._actions
            for option in action.option_strings
            if option.startswith("--")
        }

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, after a look at the names of options: one that is not known is told before what lacks."""
        self._refuse_unknown(args or ())
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            self._refuse(rest[0])
        return options

    def _refuse_unknown(self, arguments: Iterable[str]) -> None:
        for argument in arguments:
            if argument == "--":
                return
            if argument.startswith("--") and argument.partition("=")[0] not in self._option_string_actions:
                self._refuse(argument)

    def _refuse(self, argument: str) -> NoReturn:
        """Raise the sentence about an argument that is not known."""
        if not argument.startswith("-"):
            raise UsageError(f"unexpected argument {argument!r}; see `{self.prog} --help`")
        name = argument.partition("=")[0]
        raise UsageError(f"unknown option {name}; {self._hint(name)}")

    def _hint(self, name: str) -> str:
        near = nearest(f"--{name.lstrip('-')}", self._option_string_actions)
        return f"did you mean {near}?" if near else f"see `{self.prog} --help`"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like one that was mistyped; empty where none is.

    Of several that are like it, one of the same letters: ``--modle`` is ``--model`` and not ``--mode``.
    """
    near = difflib.get_close_matches(name, list(known), n=3)
    return next((one for one in near if sorted(one) == sorted(name)), near[0] if near else "")


def command_parser(verb: str) -> Parser:
    """Return the parser of a verb's options."""
    declare = VERBS[verb].declare
    parser = Parser(
        prog=f"{PROGRAM} {verb}",
        description=inspect.cleandoc(declare.__doc__ or ""),
        epilog=_examples(EXAMPLES[verb]),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, verb)
    return parser


def add_options(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add all that a verb takes to a parser."""
    VERBS[verb].declare(parser)
    if VERBS[verb].computes:
        add_threads(parser)
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="tell versions, choices, times, tracebacks of errors"
    )


def _examples(examples: Sequence[tuple[str, str]]) -> str:
    """Return examples as ``--help`` shows them: what each does, the command below."""
    lines = [f"  {what}\n    {PROGRAM} {command}" for command, what in examples]
    return "\n".join(["examples:", *lines])
