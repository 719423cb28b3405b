"""What the documents show a reader works."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from support.commands import bench

from bench import load_results
from bench.commands.main import command_parser, main
from bench.diffusion.conformance import check_sampler
from bench.metrics.weights import INCEPTION
from bench.plugins.loading import Registry

ROOT = Path(__file__).parent.parent


def shown(document, hook):
    """The Python files in a document that implement a hook."""
    return [block for block in blocks(document) if f"def {hook}" in block]


def blocks(document):
    """The Python blocks of a document."""
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize(("document", "number"), [("README.md", 1), ("docs/plugins.md", 2)])
def test_the_samplers_shown_are_whole_and_keep_the_contract(document, number, tmp_path):
    sources = shown(document, "bench_samplers")
    assert len(sources) == number
    for place, source in enumerate(sources):
        path = tmp_path / f"mine{place}.py"
        path.write_text(source)
        registry = Registry()
        registry.load_file(path)
        assert registry.failures == []
        (name,) = registry.default_samplers
        findings = check_sampler(registry.default_samplers.entries[name])
        assert all(finding.kept for finding in findings), findings


def test_the_rule_with_a_memory_beats_ddim_as_the_document_says(tmp_path):
    _, source = shown("docs/plugins.md", "bench_samplers")
    (tmp_path / "dpm.py").write_text(source)
    results = tmp_path / "results"
    asked = ["--plugin", tmp_path / "dpm.py", "--samplers", "ddim:eta=0", "dpm-solver-2m", "dpmpp-2m"]
    assert bench("run", *asked, "--steps", "10", "--results", results).returncode == 0
    score = load_results(results).set_index("sampler").score
    assert score["dpm-solver-2m"] == pytest.approx(2.18, abs=0.02)
    assert score["dpmpp"] == pytest.approx(score["dpm-solver-2m"], abs=0.01)
    assert score["ddim"] == pytest.approx(4.75, abs=0.02)


def test_the_wrapper_shown_is_the_exact_model_of_its_own_images():
    """Images in [0, 1] with law N(0.6, 0.01) are images in [-1, 1] with law N(0.2, 0.04)."""
    (source,) = (block for block in blocks("docs/models.md") if "class Wrapped" in block)
    space = {}
    exec(source, space)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    own = torch.cumprod(1 - betas, 0)

    def exact(x, t, mean, variance, table):
        a = table[t].view(-1, 1, 1, 1)
        return (1 - a).sqrt() / (a * variance + 1 - a) * (x - a.sqrt() * mean)

    model = space["Wrapped"](lambda x, t: exact(x, t - 1, 0.6, 0.01, own), betas)
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0, 10, 500, 900, 999])
    known = exact(x, t, 0.2, 0.04, model.schedule.alphas_cumprod)
    assert float((model(x, t).eps - known).abs().max()) < 1e-9
    assert space["make_model"]()(x, t).eps.shape == x.shape


def test_the_score_shown_tells_images_from_noise(tmp_path):
    (source,) = shown("docs/plugins.md", "bench_metrics")
    (tmp_path / "edges.py").write_text(source)
    results = tmp_path / "results"
    asked = ["--plugin", tmp_path / "edges.py", "--metrics", "fd_edges", "--n", "200"]
    asked += ["--samplers", "ddim:eta=0", "sigma-hat", "--steps", "10"]
    assert bench("run", *asked, "--results", results).returncode == 0
    score = load_results(results).set_index("sampler").fd_edges
    assert score["ddpm"] > 1.5 * score["ddim"] > 0


def test_the_errors_of_weights_are_those_shown(tmp_path, monkeypatch, capsys):
    """A missing file, half of one, and one of the right size that is another."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.delenv("SAMPLER_BENCH_INCEPTION", raising=False)
    monkeypatch.delenv("SAMPLER_BENCH_INCEPTION_SHA256", raising=False)
    place = tmp_path / "hub" / "checkpoints" / INCEPTION.name
    place.parent.mkdir(parents=True)
    told = []
    for size in (None, INCEPTION.size // 2, INCEPTION.size):
        if size is not None:
            with place.open("wb") as file:
                file.truncate(size)
        assert main(["stats", "digits-held-out", "--metric", "fid"]) == 2
        told.append(capsys.readouterr().err.replace(str(tmp_path), "~/.cache/torch"))
    text = (ROOT / "docs" / "scores.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- errors -->\n")[2].partition("<!-- end errors -->")[0]
    assert shown == "```\n" + "".join(told) + "```\n"


def text_of(document):
    return (ROOT / document).read_text(encoding="utf-8")


def table_rows(text):
    """The rows of the Markdown tables in a text, without their heads and the lines below these."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [line for line in lines if not re.match(r"\| (:?-|sampler \|)", line)]


def test_the_readme_is_short():
    assert len(text_of("README.md").encode()) <= 5000


def test_the_readme_shows_cells_of_the_committed_table():
    """A few rows and columns of the default sweep, without the marks of best and tied."""
    table = text_of("results/reference/digits/tables/digits-fd_digits-by-calls.md")
    head = next(line for line in table.splitlines() if line.startswith("| sampler"))
    places = [column.strip() for column in head.strip("|").split("|")]
    committed = {}
    for row in table_rows(table):
        label, *cells = (cell.strip(" *~") for cell in row.strip("|").split("|"))
        committed[label] = dict(zip(places[1:], cells, strict=True))
    readme = text_of("README.md")
    shown = next(line for line in readme.splitlines() if line.startswith("| sampler"))
    columns = [column.strip() for column in shown.strip("|").split("|")][1:]
    assert len(table_rows(readme)) == 4
    for row in table_rows(readme):
        label, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        assert cells == [committed[label][column] for column in columns]
    floor = committed["real images (n=1,000)"][columns[0]]
    assert f"score {floor}." in readme


def test_the_python_of_the_readme_draws_images():
    (source,) = (block for block in blocks("README.md") if "hookimpl" not in block)
    space = {}
    exec(source, space)
    assert space["images"].shape == (16, *space["model"].shape)


@pytest.mark.parametrize(
    ("run", "file", "count"),
    [
        ("digits", "digits-fd_digits-by-calls.md", 20),
        ("exact-digits", "exact-digits-fd_pixels.md", 8),
        ("cifar10-small", "cifar10-small-fd_cifar_resnet_96.md", 8),
    ],
)
def test_the_document_shows_the_tables_that_are_committed(run, file, count):
    rows = table_rows(text_of(f"results/reference/{run}/tables/{file}"))
    shown = text_of("docs/reference-runs.md")
    assert len(rows) == count
    assert all(row in shown for row in rows)


DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_picture_and_page_a_document_names_is_there(document):
    """Addresses beside the document; the site's build checks the places within pages."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if not re.match(r"https?:|#", target):
            assert ((ROOT / document).parent / target.partition("#")[0]).exists(), target


def commands(document):
    """The arguments of every command shown in a document, from lines that begin with it."""
    for line in text_of(document).splitlines():
        shown = re.match(r" {4,}(?:sampler-bench|python -m bench) (.+)", line)
        if shown:
            yield shlex.split(shown[1], comments=True)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_a_document_shows_is_one(document):
    for verb, *arguments in commands(document):
        if not verb.startswith("-"):
            command_parser(verb).parse_args(arguments)
