"""Documentation: links, file names, commands and terms exist, pages are short, generated pages are up to date."""

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

COVERS = ("options/declared.py",)


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
    """Return the steps of the flows in ARCHITECTURE.md: a file below src/cryostore, and a function or class in it."""
    section = ARCHITECTURE.partition("## Eight flows")[2].partition("\n## ")[0]
    return re.findall(r"`([\w/]+\.py):([\w.]+)`", section)


def definitions(path):
    """Return the qualified names of the functions, classes and methods of a file."""

    def below(node, prefix):
        for child in node.body:
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield prefix + child.name
                if isinstance(child, ast.ClassDef):
                    yield from below(child, f"{prefix}{child.name}.")

    return set(below(project.syntax(path), ""))


def anchors(text):
    """Return the anchors of a page's headings, as Markdown renderers derive them."""
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
def test_every_relative_link_has_a_target(page):
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
    """Each word in code type that looks like a path of the project must be one."""
    roots = ("src/", "tests/", "docs/", "bench/", "demo/", "scripts/", "constraints/")
    words = CODE_WORD.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    named = [word for word in words if word.startswith(roots) and not re.search(r"[*<>{}]|NNNN", word)]
    assert [word for word in named if not (project.ROOT / word).exists()] == []


def test_every_term_names_an_existing_module():
    page = (project.ROOT / "docs" / "reference" / "terms.md").read_text(encoding="utf-8")
    places = re.findall(r"\| `([\w/.]+)` \|$", page, re.MULTILINE)
    assert len(places) > 10
    assert [place for place in places if not (project.SOURCE / place).exists()] == []


@pytest.mark.parametrize("page", PROSE, ids=project.shown)
def test_lines_of_prose_are_short(page):
    """Tables, headings and code may be wider."""
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


def test_generated_pages_are_up_to_date():
    command = [sys.executable, str(project.ROOT / "scripts" / "generate_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pages_name_only_make_targets_that_exist():
    """Compare the `make` commands of all pages with the Makefile."""
    makefile = (project.ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {
        word
        for page in PAGES
        for word in re.findall(r"(?:`|^\s*)make ([a-z-]+)(?:`|\s*$)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert sorted(named - targets) == []


def test_every_dependency_is_explained_in_its_decision():
    """docs/decisions/0001-libraries.md and the dependencies of the package name the same libraries."""
    settings = (project.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    dependencies = re.search(r"^dependencies = \[\n(.*?)^\]", settings, re.MULTILINE | re.DOTALL)
    assert dependencies
    declared = set(re.findall(r'"([\w-]+)(?:\[\w+\])?"', dependencies[1]))
    page = (project.ROOT / "docs" / "decisions" / "0001-libraries.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^- \*\*([\w-]+)\*\*", page, re.MULTILINE))
    assert explained == declared
