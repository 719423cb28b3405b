"""The command line: ``python -m bench VERB``, one file a verb in `bench.commands`.

Exit status: 0 done, 1 failed work, 2 something asked for that cannot be, 130 interrupted. An error is one
sentence on standard error; what was done before it is kept.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import inspect
import io
import os
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bench.commands.usage import VERBS, add_threads
from bench.device.cores import settle
from bench.errors import BenchError, UsageError, one_line


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console without some letter shows another in its place
            stream.reconfigure(errors="replace")
    warnings.showwarning = _show_warning
    try:
        return _dispatch(arguments)
    except UsageError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except BenchError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; what is done is kept, the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a folder taken away: the machine's fault and not a bug
        where = f" ({error.filename})" if error.filename else ""
        reason = error.strerror or type(error).__name__
        print(
            f"error: {reason}{where}; what is done is kept: mend that and give the same command again",
            file=sys.stderr,
        )
        return 1


def _show_warning(message: Warning | str, *where: object, **more: object) -> None:
    """Print a warning as a sentence, without the line of code that gave it."""
    print(f"warning: {one_line(str(message))}", file=sys.stderr)


def _dispatch(arguments: list[str]) -> int:
    check_packages()
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {known.summary}" for name, known in VERBS.items())
    parser = Parser(
        prog="python -m bench",
        description="Which diffusion sampler gives the best images for the time it takes?",
        epilog=f"verbs:\n{verbs}\n\n`python -m bench VERB --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", nargs="?", help="one of those below")
    parser.add_argument("--version", action="store_true", help="print the version")
    known, verb = parser.parse_known_args(arguments[:1])[0], arguments[0] if arguments else None
    if known.version:
        from bench.plugins.loading import own_version

        print(own_version())
        return 0
    if verb is None:
        parser.print_help()
        return 2
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(VERBS)}"
        raise UsageError(f"unknown verb {verb!r}; {hint}")
    _refuse_empty(arguments[1:])
    options = command_parser(verb).parse_args(arguments[1:])
    if VERBS[verb].computes:
        _settle_threads(options.threads)
    # Only now, when it is known to be wanted: the work brings torch, which takes seconds.
    status = int(pkgutil.resolve_name(f"bench.commands.{verb.replace('-', '_')}:execute")(options))
    return max(status, _plugins_failed()) if hasattr(options, "plugin") else status


def _settle_threads(asked: int | None) -> None:
    if asked is not None and asked < 1:
        raise UsageError(f"--threads takes numbers from 1 on, got {asked}")
    settle(asked)


def _plugins_failed() -> int:
    """Return 1 where a plugin could not do something: the verb has told it."""
    from bench.plugins.loading import registry

    return int(bool(registry().failures))


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Raise UsageError where something is given nothing, as by a variable of the shell's that is empty.

    What has a default would get it, and nobody asked for that.
    """
    for before, given in zip(["", *arguments], arguments, strict=False):
        option, equals, value = given.partition("=")
        if not given.strip():
            what = before if before.startswith("--") else "an argument"
            raise UsageError(f"{what} is given nothing; leave it out or give a value")
        if option.startswith("--") and equals and not value.strip():
            raise UsageError(f"{option} is given nothing; leave it out or give a value")


def command_parser(verb: str) -> Parser:
    """Return the parser of a verb's options."""
    declare = VERBS[verb].declare
    parser = Parser(
        prog=f"python -m bench {verb}",
        description=inspect.cleandoc(declare.__doc__ or ""),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    declare(parser)
    if VERBS[verb].computes:
        add_threads(parser)
    return parser


def check_packages() -> None:
    """Say in a sentence when a foreign package has taken one of the project's generic import names.

    Raises:
        BenchError: naming the package and where it was found.
    """
    for name in ("samplers", "models"):
        spec = importlib.util.find_spec(name)
        found = next(iter(spec.submodule_search_locations or ()), "") if spec else ""
        if Path(found).parent != Path(__file__).parents[2]:
            raise BenchError(
                f"the package {name!r} is found in {found} and is not sampler-bench's; run from another"
                " folder or remove it from the path"
            )
