"""What is released holds all that it needs and nothing else: the wheel, the source archive, the image."""

import fnmatch
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from support.distributions import build, install

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
STEM = f"sampler_bench-{PROJECT['version']}"
PACKAGES = ("bench", "models", "samplers")

WHEEL, SDIST = f"{STEM}-py3-none-any.whl", f"{STEM}.tar.gz"

MOST = {WHEEL: 30e6, SDIST: 33e6}
"""Bytes; weights and images of the built-in models are nearly all of them."""

READ = (
    "bench/__init__.pyi",
    "bench/commands/templates/*.txt",
    "bench/metrics/references/*.npz",
    "bench/published/*.bib",
    "bench/published/*.csv",
    "bench/report/page/assets/*.css",
    "bench/report/page/assets/*.j2",
    "bench/report/page/assets/*.js",
    "models/assets/*.csv",
    "models/assets/*.md",
    "models/assets/*.npz.xz",
    "models/assets/*.safetensors",
    *(f"{package}/py.typed" for package in PACKAGES),
)
"""Patterns of the data files that code, type checkers and model cards lead to."""

BESIDE = {
    ".dockerignore",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "Dockerfile",
    "LICENSE",
    "NOTICE",
    "README.md",
    "mkdocs.yml",
    "pyproject.toml",
    "tox.ini",
}
"""Files of the source archive that lie beside its folders."""

WRITTEN = {"PKG-INFO", ".gitignore"}
"""Files that the build back end adds to it."""


def files_of(*folders):
    """Paths below some folders of the checkout, without what Python keeps there."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with both archives; the wheel is built from the other one, as a release's."""
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out)
    return out


@pytest.fixture(scope="module")
def wheel(built):
    """The wheel's path."""
    return built / WHEEL


@pytest.fixture(scope="module")
def in_wheel(wheel):
    """Names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def in_sdist(built):
    """Names of the files in the source archive, without the folder that holds them all."""
    with tarfile.open(built / SDIST) as archive:
        names = {member.name for member in archive.getmembers() if member.isfile()}
    assert all(name.startswith(f"{STEM}/") for name in names)
    return {name.partition("/")[2] for name in names}


def test_the_wheel_holds_the_three_packages_and_nothing_else(in_wheel):
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE"}
    assert in_wheel == files_of(*PACKAGES) | {f"{STEM}.dist-info/{name}" for name in about}


def test_the_wheel_holds_modules_and_the_data_that_they_read(in_wheel):
    data = {name for name in in_wheel if name.startswith(PACKAGES) and not name.endswith(".py")}
    assert [pattern for pattern in READ if not fnmatch.filter(data, pattern)] == []
    assert data - {name for pattern in READ for name in fnmatch.filter(data, pattern)} == set()


def test_the_sdist_holds_code_tests_and_documents_and_no_results(in_sdist):
    assert in_sdist == files_of(*PACKAGES, "tests", "docs") | BESIDE | WRITTEN


@pytest.mark.parametrize("name", MOST)
def test_neither_is_too_large(built, name):
    assert (built / name).stat().st_size < MOST[name]


RESOLVE = """
import importlib.metadata, json, sys
found = {}
for point in importlib.metadata.distribution("sampler-bench").entry_points:
    point.load()
    found[f"{point.group} {point.name}"] = sys.modules[point.module].__file__
print(json.dumps(found))
"""


def test_its_entry_points_resolve_and_the_command_bears_the_project_s_name(wheel, tmp_path):
    """So `uvx sampler-bench` and `pipx run sampler-bench` need not be told what to start."""
    install(wheel, tmp_path)
    here = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}

    def printed(*command):
        done = subprocess.run(command, capture_output=True, text=True, env=here, check=True)
        return done.stdout.strip()

    found = json.loads(printed(sys.executable, "-c", RESOLVE))
    assert found == {
        f"console_scripts {PROJECT['name']}": str(tmp_path / "bench" / "commands" / "main.py"),
        "pytest11 sampler_bench.conformance": str(tmp_path / "bench" / "commands" / "pytest_plugin.py"),
    }
    assert printed(next((tmp_path / "bin").iterdir()), "--version") == PROJECT["version"]


def requirements():
    """Every requirement of the project and of its extras."""
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        yield from (Requirement(line) for line in lines)


def test_every_dependency_has_a_lower_bound():
    """`tox -e lowest` runs tests with all of them at once."""
    free = [
        str(one)
        for one in requirements()
        if one.name != PROJECT["name"] and not {">=", "=="} & {each.operator for each in one.specifier}
    ]
    assert free == []
    (alone,) = (one for one in requirements() if one.name == "k-diffusion")
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    assert f"--no-deps {alone} ".replace(">=", "==") in tox  # which installs it without what it needs


def test_tox_has_an_environment_for_every_python_that_is_declared():
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    (factors,) = re.findall(r"^\[testenv:py3\{([\d,]+)\}\]$", tox, re.M)
    versions = [f"3.{minor}" for minor in factors.split(",")]
    head = "Programming Language :: Python :: 3."
    declared = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if line.startswith(head)]
    assert declared
    assert declared == versions[: len(declared)]  # one more is tried before it is declared
    assert PROJECT["requires-python"] == f">={versions[0]}"


def instructions():
    """(word, rest) of the Dockerfile's instructions, lines that go on joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_copies_what_its_build_needs():
    copies = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    sources = {source for copied in copies for source in copied}
    needed = {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml"}
    assert sources == needed | set(PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert [source for source in sources if not (ROOT / source).exists()] == []
    context = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in context
    assert {line[1:] for line in context if line.startswith("!")} == sources


def test_the_image_is_pinned_small_and_no_root_s():
    told = instructions()
    first = next(rest for word, rest in told if word == "ARG")
    base = re.fullmatch(r"BASE=python:(3\.\d+)-slim-[a-z]+", first)
    assert base[1] in SpecifierSet(PROJECT["requires-python"])
    assert {rest.split()[0] for word, rest in told if word == "FROM"} == {"${BASE}"}
    installs = [rest for word, rest in told if word == "RUN" and "pip install" in rest]
    assert installs
    assert all("--no-cache-dir" in rest for rest in installs)
    last = max(place for place, (word, _) in enumerate(told) if word == "FROM")
    stage = dict(told[last:])
    assert stage["USER"] not in ("root", "0")
    assert stage["ENTRYPOINT"] == json.dumps([PROJECT["name"]])


def test_the_citation_is_whole_and_has_the_version_and_the_licence_of_the_package():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "authors", "title"} <= set(citation)  # what its schema asks for
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert all(author.get("name") or author.get("family-names") for author in citation["authors"])
    assert citation["title"].startswith(PROJECT["name"])
    assert citation["version"] == PROJECT["version"]
    # In a citation several licences are a choice; in the package both hold, the first of the code.
    assert citation["license"] == PROJECT["license"].split(" AND ")[0]
