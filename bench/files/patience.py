"""Downloads that outlast a broken connection: tried again after growing pauses, from where they stopped.

A server that knows byte ranges (RFC 9110, section 14) sends what is missing; from one that does not the file
is read again from its start, up to where it broke off.
"""

from __future__ import annotations

import logging
import posixpath
import re
import time
import urllib.request
from collections.abc import Callable, Sequence
from email.message import Message
from functools import partial
from http.client import HTTPException
from typing import Any, Self, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from bench.errors import BenchError

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each new try; with every byte that arrives the count begins anew."""

LONGEST = 60.0
"""Seconds that are waited at most where a server says how long it wants to be left alone."""

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes of answers that may be others in a moment."""

SKIPPED = 1 << 20
"""Bytes that are read and dropped at a time."""

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)


class Transfer:
    """A published file to be read, which opens its URL anew where the connection breaks.

    What broke, and when it is tried again, is logged as a warning.

    Args:
        url: where the file is published.
        timeout: seconds without a byte after which a connection is given up.
        pauses: seconds before each new try.

    Attributes:
        size: bytes that the first response announced, None where nobody says.

    Raises:
        OSError: if the file cannot be opened and no other try would mend it; so do reads.
    """

    def __init__(self, url: str, *, timeout: float = 60.0, pauses: Sequence[float] = PAUSES) -> None:
        self.size: int | None = None
        self._url, self._timeout, self._pauses = url, timeout, pauses
        self._done, self._tries = 0, 0
        self._response: Any = None
        self._response = self._tried(self._asked)
        self.size, self._tag = _length(self._response.headers), self._response.headers.get("ETag")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def read(self, amount: int) -> bytes:
        """Return the next bytes, at most so many; none at the end."""
        return self._tried(partial(self._next, amount))

    def _next(self, amount: int) -> bytes:
        if self._response is None:
            self._response = self._continued()
        block = bytes(self._response.read(amount))
        if not block and self.size is not None and self._done < self.size:
            raise ConnectionError("the connection was closed")
        if block:
            self._done, self._tries = self._done + len(block), 0
        return block

    def _asked(self) -> Any:
        headers = {"Range": f"bytes={self._done}-"} if self._done else {}
        request = urllib.request.Request(self._url, headers=headers)
        return urllib.request.urlopen(request, timeout=self._timeout)

    def _continued(self) -> Any:
        """Return a new response of which the next byte is the first that has not arrived.

        Raises:
            BenchError: if another file lies there now.
            OSError: if the connection breaks, or other bytes are sent than those asked for.
        """
        response = self._asked()
        try:
            first, size = 0, _length(response.headers)
            if response.status == 206:
                first, size = _range(response.headers)
            tags = {self._tag, response.headers.get("ETag")} - {None}
            if len(tags) > 1 or (self.size is not None and size not in (None, self.size)):
                raise BenchError(f"{self._url} was replaced while it was downloaded: try again")
            if first not in (0, self._done):
                raise ConnectionError("the server sent other bytes than those it was asked for")
            self._skip(response, self._done - first)
        except BaseException:
            response.close()
            raise
        return response

    def _skip(self, response: Any, count: int) -> None:
        while count:
            block = response.read(min(count, SKIPPED))
            if not block:
                raise ConnectionError("the connection was closed")
            count -= len(block)

    def _tried(self, work: Callable[[], Answer]) -> Answer:
        """Return what some work gives, tried again with pauses while there is hope that it will.

        Raises:
            OSError, HTTPException: the last try's, or one that no other try would mend.
        """
        while True:
            try:
                return work()
            except (OSError, HTTPException) as error:
                self._close()
                if isinstance(error, HTTPError):
                    error.close()
                told = self._told(error)
                if self._tries == len(self._pauses) or not _is_passing(error, begun=self._done > 0):
                    raise ConnectionError(told) from error
                pause = max(self._pauses[self._tries], _wanted(error))
            self._tries += 1
            name = posixpath.basename(urlsplit(self._url).path)
            _log.warning("%s: %s; tried again in %g s", name, told, pause)
            time.sleep(pause)

    def _told(self, error: OSError | HTTPException) -> str:
        """Return what broke, and how far it had come."""
        cause = _cause(error)
        text = str(cause) or type(cause).__name__
        size = "" if self.size is None else f" of {self.size:,}"
        return f"{text} after {self._done:,}{size} bytes" if self._done else text

    def _close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


def _is_passing(error: OSError | HTTPException, *, begun: bool) -> bool:
    """Return whether another try may succeed.

    A host that was never reached is not there, and the user need not wait to be told so.
    """
    if isinstance(error, HTTPError):
        return error.code in PASSING
    return begun or isinstance(_cause(error), TimeoutError | ConnectionResetError | HTTPException)


def _cause(error: OSError | HTTPException) -> object:
    """Return what ``urlopen`` failed at, without the words that it puts around."""
    return error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error


def _wanted(error: OSError | HTTPException) -> float:
    """Return the seconds that a server wants to be left alone, at most `LONGEST`."""
    asked = str(error.headers.get("Retry-After", "")) if isinstance(error, HTTPError) else ""
    return min(float(asked), LONGEST) if asked.isdecimal() else 0.0


def _length(headers: Message) -> int | None:
    """Return the number of bytes that a response announces."""
    length = headers.get("Content-Length")
    return int(length) if length is not None and length.isdecimal() else None


def _range(headers: Message) -> tuple[int, int | None]:
    """Return (the first byte of a part, the size of the whole, None where nobody says)."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    if found is None:
        raise ConnectionError("the server does not say which part it sent")
    return int(found[1]), None if found[2] == "*" else int(found[2])
