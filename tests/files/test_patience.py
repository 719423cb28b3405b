"""Downloads over connections that break, from servers that know byte ranges and servers that do not."""

import hashlib
import http.server
import itertools
import threading
import time

import pytest

from bench.commands.fetch import FILES
from bench.commands.main import main
from bench.errors import BenchError
from bench.files.download import download
from bench.files.patience import PAUSES
from bench.metrics.weights import WeightFile

CONTENT = bytes(range(256)) * 10_000
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
BREAK = 1_200_000
"""Bytes after which a connection is closed in the middle."""


class Server:
    """A local server of one file that follows a script: what it does with each request in turn.

    ``cut`` sends `BREAK` bytes of what was asked for and hangs up, ``drop`` hangs up without an answer, a
    number answers with that status, ``whole`` sends all; the last one holds for all requests that follow.

    Attributes:
        asked: the ``Range`` of every request, None where it had none.
        ranges: whether it knows byte ranges.
        tags: the entity tags of its answers, in turn.
        length: whether it announces how much there is.
    """

    def __init__(self, *script):
        self.script, self.asked, self.ranges = list(script), [], True
        self.tags, self.length, self.shift = itertools.repeat('"one"'), True, 0

    def answer(self, handler):
        self.asked.append(handler.headers["Range"])
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if step == "drop":
            handler.close_connection = True
            return
        if isinstance(step, int):
            handler.send_response(step)
            handler.send_header("Retry-After", "7")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        first = int(self.asked[-1].removeprefix("bytes=").rstrip("-")) if self.asked[-1] else 0
        part = first > 0 and self.ranges
        sent = CONTENT[first:] if part else CONTENT
        handler.send_response(206 if part else 200)
        handler.send_header("ETag", next(self.tags))
        if part:
            start = first + self.shift
            handler.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if self.length:
            handler.send_header("Content-Length", str(len(sent)))
        handler.end_headers()
        handler.wfile.write(sent[:BREAK] if step == "cut" else sent)
        handler.close_connection = True


@pytest.fixture
def serve():
    """Start servers that follow scripts: function(script) -> (server, address)."""
    running = []

    def start(*script):
        told = Server(*script)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                told.answer(self)

            def log_message(self, *given):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return told, f"http://127.0.0.1:{server.server_port}/weights.pth"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    """The pauses that were made, without making them."""
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


@pytest.fixture
def got(caplog):
    """Download a file: function(address, folder) -> (its content, what was told of new tries)."""

    def get(address, folder, digest=DIGEST, **options):
        path = download(address, folder / "weights.pth", digest, **options)
        assert list(folder.iterdir()) == [path]
        return path.read_bytes(), caplog.messages

    return get


@pytest.fixture
def refused(caplog):
    """Fail to download a file, which leaves nothing behind: function(...) -> what was told of new tries."""

    def get(address, folder, match, digest=DIGEST):
        with pytest.raises(BenchError, match=match):
            download(address, folder / "weights.pth", digest)
        assert list(folder.iterdir()) == []
        return caplog.messages

    return get


def test_a_download_goes_on_where_the_connection_broke(got, serve, tmp_path, slept):
    server, address = serve("cut", "cut", "whole")
    seen = []
    content, told = got(address, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert content == CONTENT
    assert server.asked == [None, f"bytes={BREAK}-", f"bytes={2 * BREAK}-"]
    assert slept == [PAUSES[0]] * 2  # what arrives gives hope: the pauses begin anew
    assert told == [
        f"weights.pth: the connection was closed after {done:,} of 2,560,000 bytes; tried again in 1 s"
        for done in (BREAK, 2 * BREAK)
    ]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {len(CONTENT)}
    assert seen[-1][0] == len(CONTENT)


@pytest.mark.parametrize(("size", "told"), [(3_000_000, "ended after 2,560,000 of 3,000,000"), (9, "longer")])
def test_a_file_of_another_size_is_not_the_one(serve, tmp_path, size, told):
    _, address = serve("whole")
    with pytest.raises(BenchError, match=told):
        download(address, tmp_path / "weights.pth", DIGEST, size=size)
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_ranges_sends_the_start_again_and_it_is_dropped(got, serve, tmp_path):
    server, address = serve("cut", "whole")
    server.ranges = False
    seen = []
    content, _ = got(address, tmp_path, progress=lambda done, total: seen.append(done))
    assert content == CONTENT
    assert server.asked == [None, f"bytes={BREAK}-"]
    assert seen[-1] == len(CONTENT)


def test_of_a_server_without_ranges_a_break_in_the_dropped_part_counts(refused, serve, tmp_path, slept):
    server, address = serve("cut")
    server.ranges = False
    refused(address, tmp_path, r"the connection was closed after 1,200,000 of 2,560,000 bytes\)")
    assert slept == list(PAUSES)


def test_an_overloaded_server_is_asked_again_after_growing_pauses(got, serve, tmp_path, slept):
    server, address = serve(503, 503, 429, 502, "whole")
    content, told = got(address, tmp_path)
    assert content == CONTENT
    assert slept == [7, 7, 7, 8]  # it says 7 s
    assert "HTTP Error 503: Service Unavailable; tried again in 7 s" in told[0]
    assert len(server.asked) == 5


def test_a_connection_dropped_before_the_first_byte_is_tried_again(got, serve, tmp_path, slept):
    _, address = serve("drop", "drop", "whole")
    assert got(address, tmp_path)[0] == CONTENT
    assert slept == [PAUSES[0], PAUSES[1]]


def test_there_is_an_end_to_patience(refused, serve, tmp_path, slept):
    server, address = serve("drop")
    told = refused(address, tmp_path, "could not be downloaded")
    assert slept == list(PAUSES)
    assert len(server.asked) == len(PAUSES) + 1 == len(told) + 1


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_no_other_try_would_mend_is_told_at_once(refused, serve, tmp_path, slept, status):
    server, address = serve(status)
    refused(address, tmp_path, rf"weights\.pth could not be downloaded .*HTTP Error {status}")
    assert (len(server.asked), slept) == (1, [])


def test_a_host_that_was_never_reached_is_told_at_once(refused, tmp_path, slept):
    refused("http://127.0.0.1:1/weights.pth", tmp_path, "Connection refused")
    assert slept == []


def test_a_digest_that_does_not_match_leaves_no_part(refused, serve, tmp_path):
    server, address = serve("cut", "whole")
    refused(address, tmp_path, "it is damaged or another file, and it was not kept", f"sha256:{'0' * 64}")
    assert len(server.asked) == 2


def test_two_halves_of_two_files_make_none(refused, serve, tmp_path):
    """Without a published digest nobody else would notice."""
    server, address = serve("cut", "whole")
    server.tags = iter(['"one"', '"two"'])
    refused(address, tmp_path, r"was replaced while it was downloaded: try again", digest=None)


def test_other_bytes_than_those_asked_for_are_not_taken(refused, serve, tmp_path):
    server, address = serve("cut", "whole")
    server.shift = 5
    refused(address, tmp_path, "other bytes than those it was asked for", digest=None)


def test_a_size_that_nobody_announced_ends_where_the_file_does(got, serve, tmp_path):
    server, address = serve("whole")
    server.length = False
    assert got(address, tmp_path)[0] == CONTENT


def test_fetch_goes_on_and_says_so(serve, tmp_path, monkeypatch, capsys):
    server, address = serve(503, "cut", "whole")
    file = WeightFile("toy.pth", len(CONTENT), DIGEST.removeprefix("sha256:"), address, "TOY", "fetch toy")
    monkeypatch.setitem(FILES, "toy", file)
    assert main(["fetch", "toy", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'toy.pth'}\n"
    assert [line.partition("; ")[2] for line in said.err.splitlines()] == [
        "tried again in 7 s",
        "tried again in 1 s",
    ]
    server.script = ["cut", "whole"]
    assert main(["fetch", "toy", "--out", str(tmp_path / "again"), "-q"]) == 0
    assert capsys.readouterr().err == ""
