"""The command line: ``sampler-bench VERB``, one file a verb in `bench.commands`.

Exit status: 0 done, 1 failed work, 2 something asked for that cannot be, 130 interrupted, 143 terminated, 129
hung up. An error is one sentence on standard error; what was done before it is kept.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import os
import pkgutil
import platform
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress

from bench.catalog import own_version
from bench.commands.config import chosen_arguments, chosen_options, parse_options, save_config
from bench.commands.parser import Parser, command_parser, nearest
from bench.commands.paths import own_packages_first
from bench.commands.stopping import STOPPED, Terminated, ended_at_once, ended_in_order
from bench.commands.usage import PROGRAM, VERBS
from bench.commands.verbosity import Verbosity, detail, is_verbose, set_verbosity
from bench.device.allocator import keep_freed_memory
from bench.device.cores import settle
from bench.errors import BenchError, UsageError, one_line

LOUDNESS = ("-v", "--verbose", "-q", "--quiet")
"""Options that may stand before the verb too."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console without some letter shows another in its place
            stream.reconfigure(errors="replace")
    warnings.showwarning = _show_warning
    try:
        return _dispatch(arguments)
    except BenchError as error:
        _say_error(error)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as error:
        if argv is None:  # the program is about to end: another Ctrl-C ends it now, without tracebacks
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        with suppress(OSError):  # the terminal may be what went away
            print(f"\n{STOPPED}", file=sys.stderr)
        return error.status if isinstance(error, Terminated) else 130
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


def _say_error(error: BenchError) -> None:
    """Print an error as a sentence, and where it comes from if that was asked for.

    The commands in some sentences lie in code whose hash keeps records fresh; they are named here by the
    command that works in any folder.
    """
    if is_verbose():
        traceback.print_exception(error)
    print(f"error: {one_line(str(error))}", file=sys.stderr)


def _show_warning(message: Warning | str, *where: object, **more: object) -> None:
    """Print a warning as a sentence, without the line of code that gave it."""
    print(f"warning: {one_line(str(message))}", file=sys.stderr)


def _dispatch(arguments: list[str]) -> int:
    set_verbosity(Verbosity.NORMAL)
    own_packages_first()
    loudness = _leading_loudness(arguments)
    arguments = [*arguments[len(loudness) :], *loudness]
    parser = _top_parser()
    known, verb = parser.parse_known_args(arguments[:1])[0], arguments[0] if arguments else None
    if known.version:
        print(own_version())
        return 0
    if verb is None:
        parser.print_help()
        return 2
    if verb not in VERBS:
        near = nearest(verb, VERBS)
        hint = f"did you mean {near}?" if near else f"known: {', '.join(VERBS)}"
        raise UsageError(f"unknown verb {verb!r}; {hint}")
    return _run_verb(verb, arguments[1:])


def _leading_loudness(arguments: Sequence[str]) -> list[str]:
    """Return the options of `LOUDNESS` that stand before the verb."""
    verb = next((place for place, one in enumerate(arguments) if one not in LOUDNESS), len(arguments))
    return list(arguments[:verb])


def _top_parser() -> Parser:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {known.summary}" for name, known in VERBS.items())
    parser = Parser(
        prog=PROGRAM,
        description="Which diffusion sampler gives the best images for the time it takes?",
        epilog=f"verbs:\n{verbs}\n\n`{PROGRAM} VERB --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", nargs="?", help="one of those below")
    parser.add_argument("--version", action="store_true", help="print the version")
    return parser


def _run_verb(verb: str, arguments: Sequence[str]) -> int:
    """Do the work of a verb and return its exit status."""
    _refuse_empty(arguments)
    parser = command_parser(verb)
    options = parse_options(parser, arguments)
    quiet = getattr(options, "quiet", False)
    if quiet and options.verbose:
        raise UsageError("-q and -v exclude each other; give one")
    if quiet or options.verbose:
        set_verbosity(Verbosity.QUIET if quiet else Verbosity.VERBOSE)
    if getattr(options, "save_config", None) is not None:
        save_config(parser, options, options.save_config)
    if getattr(options, "config", None) is not None:
        _name_options(verb, parser, options)
    _tell_setting(parser, options)
    began = time.perf_counter()
    if VERBS[verb].computes:
        _settle_threads(options.threads)
        keep_freed_memory()
    # Only now, when it is known to be wanted: the work brings torch, which takes seconds.
    with ended_at_once():
        execute = pkgutil.resolve_name(f"bench.commands.{verb.replace('-', '_')}:execute")
    with ended_in_order():
        status = int(execute(options))
    detail(f"{verb} took {time.perf_counter() - began:.1f} s, exit status {status}")
    return max(status, _plugins_failed()) if hasattr(options, "plugin") else status


def _settle_threads(asked: int | None) -> None:
    if asked is not None and asked < 1:
        raise UsageError(f"--threads takes numbers from 1 on, got {asked}")
    settle(asked)


def _name_options(verb: str, parser: Parser, options: argparse.Namespace) -> None:
    """Let records name the options that a file holds: the file may change."""
    from bench.records.provenance import set_command  # brings torch, which whoever gives a file waits for

    set_command([verb, *chosen_arguments(parser, options)])


def _tell_setting(parser: Parser, options: argparse.Namespace) -> None:
    """Tell versions and choices where more than progress is wanted."""
    if not is_verbose():
        return
    versions = ", ".join(f"{name} {_version(name)}" for name in (PROGRAM, "torch", "numpy"))
    detail(f"{versions}, Python {platform.python_version()}, {platform.platform()}")
    for key, value in chosen_options(parser, options):
        detail(f"  {key}: {' '.join(map(str, value)) if isinstance(value, list) else value}")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


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
