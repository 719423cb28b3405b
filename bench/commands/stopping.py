"""What stops a command: Ctrl-C at any moment, and SIGTERM or SIGHUP, which end its work as Ctrl-C does.

Work that is ended in order takes its workers and its jobs on a cluster with it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

STOPPED = "stopped; what is done is kept, the same command goes on from here"

FROM_OUTSIDE = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What a scheduler, a shutdown or a lost connection sends."""

Handler = Callable[[int, FrameType | None], None]


class Terminated(KeyboardInterrupt):
    """A signal of `FROM_OUTSIDE` came; users' code is not to take it for an error of its own.

    Attributes:
        status: the exit status, 128 and the signal's number, as a shell tells it.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let the signals of `FROM_OUTSIDE` raise `Terminated` within, if they would end the process at once."""
    process = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a fork, as of a plugin's own pool: it ends as if this were not here
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise Terminated(number)

    with _handled(dict.fromkeys(FROM_OUTSIDE, (signal.SIG_DFL, terminate))):
        yield


@contextmanager
def ended_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process within, where nothing is under way yet.

    Libraries that are being imported take the exception for one of their own, and fail with another.
    """

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        os.write(2, f"\n{STOPPED}\n".encode())
        os._exit(128 + number)

    with _handled({signal.SIGINT: (signal.default_int_handler, leave)}):
        yield


@contextmanager
def _handled(handlers: Mapping[int, tuple[object, Handler]]) -> Iterator[None]:
    """Handle signals within, each where it is handled as it was at first: who ignores one goes on to.

    Args:
        handlers: by signal, what it must be handled by, and what handles it within.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no other thread may change them
        return
    before = {number: signal.getsignal(number) for number in handlers}
    mine = [number for number, (first, _) in handlers.items() if before[number] == first]
    try:
        for number in mine:
            signal.signal(number, handlers[number][1])
        yield
    finally:
        for number in mine:
            signal.signal(number, before[number])
