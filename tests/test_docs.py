"""What the documents show a reader works."""

import ast
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
import torch
from support.choice import FEW, MANY, TABLES, ranked, table_of
from support.commands import bench

from bench import compare, load_results
from bench.commands.examples import EXAMPLES
from bench.commands.main import main
from bench.commands.options import parse_metrics, parse_samplers
from bench.commands.parser import command_parser
from bench.diffusion.conformance import check_sampler
from bench.metrics.weights import INCEPTION
from bench.plugins.loading import Registry, registry

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
    committed = committed_cells("digits/tables/digits-fd_digits-by-calls.md")
    readme = text_of("README.md")
    head = next(line for line in readme.splitlines() if line.startswith("| sampler"))
    columns = [column.strip() for column in head.strip("|").split("|")][1:]
    assert len(table_rows(readme)) == 4
    for row in table_rows(readme):
        label, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        assert cells == [committed[label][column] for column in columns]
    assert f"score {committed['real images (n=1,000)'][columns[0]]}." in readme


def test_the_python_of_the_readme_sweeps_and_plots(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (source,) = (block for block in blocks("README.md") if "hookimpl" not in block)
    exec(source, {})
    assert "dpmpp-2m" in capsys.readouterr().out
    assert (tmp_path / "steps.png").stat().st_size > 1000


def committed_cells(file):
    """{row: {column: cell}} of a committed table, without the marks of best and tied."""
    table = text_of(f"results/reference/{file}")
    head = next(line for line in table.splitlines() if line.startswith("| sampler"))
    columns = [column.strip() for column in head.strip("|").split("|")][1:]
    rows = ([cell.strip(" *~") for cell in row.strip("|").split("|")] for row in table_rows(table))
    return {label: dict(zip(columns, cells, strict=True)) for label, *cells in rows}


def test_the_tutorial_shows_what_its_commands_print():
    shown = text_of("docs/tutorial.md").partition("<!-- first table -->\n")[2].partition("<!-- end of")[0]
    committed = committed_cells("digits/tables/digits-fd_digits.md")
    assert len(table_rows(shown)) == 4
    for row in table_rows(shown):
        label, *cells = (cell.strip(" *~") for cell in row.strip("|").split("|"))
        assert cells == [committed[label][column] for column in ("S=10", "S=20")]
    cells = table_of("digits").cells
    told = compare(cells["dpmpp-2m", 10].score, cells["ddim eta=0", 10].score)
    sentence = f"by {-told.difference:.1f} ± {told.se:.2f}, which is {-told.z:.1f} standard errors"
    assert sentence in " ".join(text_of("docs/tutorial.md").split())


def test_the_python_of_the_tutorial_reads_results(tmp_path, monkeypatch):
    (tmp_path / "results").symlink_to(ROOT / "results" / "reference" / "digits")
    monkeypatch.chdir(tmp_path)
    (source,) = blocks("docs/tutorial.md")
    space = {}
    exec(source, space)
    assert len(space["results"].query("steps == 10")) == 19


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
    for line in re.sub(r"\\\n\s*", "", text_of(document)).splitlines():
        shown = re.match(r"(?: {4,}|)(?:sampler-bench|python -m bench) (.+)", line)
        if shown:
            yield shlex.split(shown[1], comments=True)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_a_document_shows_is_one(document):
    for verb, *arguments in commands(document):
        if not verb.startswith("-"):
            names_are_known(command_parser(verb).parse_args(arguments))


@pytest.mark.parametrize("verb", EXAMPLES)
def test_every_example_of_the_help_names_what_there_is(verb):
    for command, _ in EXAMPLES[verb]:
        names_are_known(command_parser(verb).parse_args(shlex.split(command)[1:]))


def names_are_known(options):
    """Refuse names of samplers and scores that there are not, where no file of the user's brings some."""
    if not getattr(options, "plugin", None):
        parse_samplers(getattr(options, "samplers", None) or [])
        for name in parse_metrics(getattr(options, "metrics", None) or "fid"):
            registry().metrics.get(name)


def test_the_page_on_choosing_has_what_the_records_say():
    for table in TABLES:
        assert table.written() == table.make()


def test_with_few_calls_a_multistep_solver_is_the_best_and_no_grid_always():
    grids = set()
    for run, budgets in FEW.items():
        for budget in budgets:
            best, ties, scores = ranked(table_of(run), budget)
            name, _, grid = best.partition(" on ")
            assert name.split()[0] in {"dpmpp-2m", "unipc", "ipndm", "sa-solver"}
            grids.add(grid)
            assert not any(row.startswith("heun") for row in (best, *ties))
            least = 2.5 if budget == 5 else 1.6
            assert scores["ddim eta=0 on time"].value > least * scores[best].value
    assert len(grids) > 1


def test_with_many_calls_noise_helps_networks_that_err_and_the_larger_variance_loses():
    for run, budgets in MANY.items():
        for budget in budgets:
            best, ties, _ = ranked(table_of(run), budget)
            if budget <= 50:
                assert not any(row.startswith("ddpm fixedlarge") for row in (best, *ties))
        if run == "exact-digits":
            assert {"ddim eta=0", "ddim eta=1"} <= {best, *ties}
        else:
            assert best == "ddim eta=1"
    _, ties, _ = ranked(table_of("digits"), 20)
    assert len(ties) == 13


def cited_tests(text):
    """(file, name) of every test that a document names in a link."""
    return [(file, name) for name, file in re.findall(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/]+\.py)\)", text)]


def test_the_theory_names_tests_and_functions_that_are_there():
    text = text_of("docs/theory.md")
    cited = cited_tests(text)
    assert len(cited) > 30
    for file, name in cited:
        tree = ast.parse(text_of(file))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (file, name)
    for name in re.findall(r"\[`((?:bench|samplers|models)\.[\w.]+)`\]", text):
        assert callable(pkgutil.resolve_name(name)), name


def test_every_equation_of_the_theory_has_a_function_and_a_test():
    """Behind every displayed equation, before the next one or the next heading."""
    parts = re.split(r"^\$\$\n.*?^\$\$\n", text_of("docs/theory.md"), flags=re.S | re.M)
    assert len(parts) > 18
    for after in parts[1:]:
        told = re.sub(r"\s+", " ", re.split(r"^## ", after, maxsplit=1, flags=re.M)[0])
        assert re.search(r"Computed by \[`(bench|samplers|models)\.", told), told
        assert re.search(r"proved by \[`test_|by \[`test_", told), told
