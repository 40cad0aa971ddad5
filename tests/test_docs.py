"""The documentation names what is there, and what it names is there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from itertools import count
from urllib.parse import unquote

import pytest

import cryostore
from support import project

COVERS = ("options/page.py",)


ARCHITECTURE = (project.ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PAGES = [path for path in project.files() if path.suffix == ".md"]
PROSE = [path for path in PAGES if "spec" not in path.parts]
COLUMNS_MAX = 100
README_LINES_MAX = 100
ARCHITECTURE_LINES_MAX = 120

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE_WORD = re.compile(r"`([^`\s]+)`")
HEADING = re.compile(r"^#+ +(.+?)$", re.MULTILINE)


def flow_steps():
    """The steps of the flows in ARCHITECTURE.md: a file below src/cryostore, and a function or class in it."""
    section = ARCHITECTURE.partition("## Eight flows")[2].partition("\n## ")[0]
    return re.findall(r"`([\w/]+\.py):([\w.]+)`", section)


def definitions(path):
    """The functions, classes and methods of a file, by their qualified names."""

    def below(node, prefix):
        for child in node.body:
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield prefix + child.name
                if isinstance(child, ast.ClassDef):
                    yield from below(child, f"{prefix}{child.name}.")

    return set(below(project.syntax(path), ""))


def anchors(text):
    """The anchors of a page's headings, as its readers' browsers know them."""
    headings = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(FENCED.sub("", text)))
    return {heading.strip().replace(" ", "-") for heading in headings}


def test_architecture_is_short():
    assert len(ARCHITECTURE.splitlines()) <= ARCHITECTURE_LINES_MAX


def test_architecture_follows_eight_flows():
    section = ARCHITECTURE.partition("## Eight flows")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\*\*", section, re.MULTILINE)) == 8
    assert len(flow_steps()) > 8


@pytest.mark.parametrize(("file", "name"), flow_steps())
def test_every_step_of_a_flow_exists(file, name):
    assert name in definitions(project.SOURCE / file)


@pytest.mark.parametrize("page", PAGES, ids=project.shown)
def test_every_relative_link_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    broken = []
    for link in LINK.findall(FENCED.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=project.shown)
def test_every_file_named_in_a_page_exists(page):
    """A word in code type that looks like a path of this tree is one."""
    roots = ("src/", "tests/", "docs/", "bench/", "demo/", "scripts/", "constraints/")
    words = CODE_WORD.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    named = [word for word in words if word.startswith(roots) and not re.search(r"[*<>{}]|NNNN", word)]
    assert [word for word in named if not (project.ROOT / word).exists()] == []


def test_every_term_is_defined_where_the_page_says():
    page = (project.ROOT / "docs" / "reference" / "terms.md").read_text(encoding="utf-8")
    places = re.findall(r"\| `([\w/.]+)` \|$", page, re.MULTILINE)
    assert len(places) > 10
    assert [place for place in places if not (project.SOURCE / place).exists()] == []


@pytest.mark.parametrize("page", PROSE, ids=project.shown)
def test_prose_fits_a_terminal(page):
    """Tables and blocks of code are as wide as they need to be."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if not line.startswith(("|", "#", "    ", "<!--"))]
    assert [line for line in lines if len(line) > COLUMNS_MAX] == []


def test_the_readme_is_short():
    lines = (project.ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= README_LINES_MAX


def test_decisions_are_numbered_without_gaps():
    names = sorted(path.name for path in (project.ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(name[:4]) for name in names] == [number for number, _ in zip(count(), names, strict=False)]


def test_the_changelog_has_the_current_version():
    changelog = (project.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(cryostore.__version__)}\b", changelog, re.MULTILINE)


def test_generated_pages_are_what_the_code_generates():
    command = [sys.executable, str(project.ROOT / "scripts" / "generate_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_names_only_commands_that_exist():
    """Every `make` target that a page tells its reader to run is in the Makefile."""
    makefile = (project.ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    told = {
        word
        for page in PAGES
        for word in re.findall(r"(?:`|^\s*)make ([a-z-]+)(?:`|\s*$)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert sorted(told - targets) == []


def test_the_libraries_page_argues_for_every_dependency():
    """docs/decisions/0001-libraries.md and the dependencies of the package name the same libraries."""
    settings = (project.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    dependencies = re.search(r"^dependencies = \[\n(.*?)^\]", settings, re.MULTILINE | re.DOTALL)
    assert dependencies
    declared = set(re.findall(r'"([\w-]+)(?:\[\w+\])?"', dependencies[1]))
    page = (project.ROOT / "docs" / "decisions" / "0001-libraries.md").read_text(encoding="utf-8")
    argued = set(re.findall(r"^- \*\*([\w-]+)\*\*", page, re.MULTILINE))
    assert argued == declared
