"""The built site in a browser: formulas are drawn, nothing sticks out, no other machine is asked."""

import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support import browser as chromium

for package in ("mkdocs", "material", "mkdocstrings", "mathjax"):
    pytest.importorskip(package)

ROOT = Path(__file__).parent.parent
PAGES = ["index", "choose", "theory", "command-line", "reference-runs"]
pytestmark = pytest.mark.skipif(chromium.find() is None, reason="no Chromium is installed")


class Quiet(SimpleHTTPRequestHandler):
    """Hands out files and says nothing of it."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of the site, built strictly and served here: the search reads its index over HTTP."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", ROOT / "mkdocs.yml"]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    made = subprocess.run(
        [*command, "--site-dir", folder],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def opened(browser, address, width=1280):
    browser.size(width, 900)
    browser.send("Page.navigate", url=address)
    browser.wait("Page.loadEventFired")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_nobody_says_nothing_and_fits_a_desk_and_a_hand(browser, site, name):
    browser.errors.clear()
    browser.requests.clear()
    opened(browser, f"{site}/{name}.html")
    assert browser.run("document.querySelector('h1').textContent.length") > 3
    assert browser.errors == []
    assert all(address.startswith(site) for address in browser.requests)
    for width in (1280, 390):
        browser.size(width, 900)
        assert browser.run("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("name", "least"), [("theory", 60), ("api", 15), ("glossary", 10)])
def test_every_formula_is_drawn(browser, site, name, least):
    opened(browser, f"{site}/{name}.html")
    browser.run("MathJax.startup.promise.then(() => 1)")
    written = browser.run("document.querySelectorAll('.arithmatex').length")
    assert browser.run("document.querySelectorAll('.arithmatex > mjx-container').length") == written >= least
    assert browser.run("document.querySelectorAll('[data-mjx-error], mjx-merror').length") == 0


def test_the_search_finds_a_word_of_the_theory(browser, site):
    opened(browser, f"{site}/index.html?q=guidance")
    found = """new Promise(done => { const look = setInterval(() => {
        const first = document.querySelector('.md-search-result__item a');
        if (first) { clearInterval(look); done(first.href); } }, 50); })"""
    assert browser.run(found).startswith(site)
