"""Generator of pages of docs/ and of the table of packages in ARCHITECTURE.md.

With --check, it only names the files that are out of date, and exits 1 if there are any (tests/test_docs.py).
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import cli_page
import terminal_picture

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "cryostore"

# `render()` of the module returns the page.
PAGES = {
    "docs/reference/api-coverage.md": "cryostore.wire.reference.coverage",
    "docs/reference/configuration.md": "cryostore.options.declared",
}
PICTURES = {"docs/pictures/first-backup.svg": "docs/pictures/first-backup.cast"}
"""Pictures by the recorded session that each is drawn from (`record_session`)."""
BEGIN = "<!-- packages: written by `make docs` from the first sentence of each package -->\n"
END = "<!-- end of packages -->\n"


def first_sentence(path: Path) -> str:
    """Return the first sentence of a module's docstring, as Markdown."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    sentence = re.match(r".*?[.](?= [A-Z`]|$)", paragraph)
    return sentence[0] if sentence else paragraph


def packages() -> list[Path]:
    """Return the packages with code, two levels deep, from the top layer to the bottom."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = next(c["layers"] for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    layers = [name.strip(" ()") for line in lines for name in line.split("|")]
    found = {path.parent for depth in ("*", "*/*") for path in SOURCE.glob(f"{depth}/__init__.py")}
    found = {package for package in found if len(list(package.rglob("*.py"))) > 1}
    return sorted(found, key=lambda path: (layers.index(path.relative_to(SOURCE).parts[0]), path))


def described_packages() -> str:
    """Return a table with one row per package."""
    rows = (
        f"| `{package.relative_to(SOURCE).as_posix()}/` | {first_sentence(package / '__init__.py')} |"
        for package in packages()
    )
    return "\n".join(["| package | contents |", "|---|---|", *rows]) + "\n"


def architecture() -> str:
    """Return the text of ARCHITECTURE.md with the current table of packages."""
    before, begin, rest = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit("ARCHITECTURE.md lacks the comments around its table of packages")
    return f"{before}{BEGIN}\n{described_packages()}\n{END}{after}"


def pages() -> Iterator[tuple[str, str]]:
    """Yield every generated file with its text."""
    yield "ARCHITECTURE.md", architecture()
    for name, module in PAGES.items():
        yield name, importlib.import_module(module).render()
    yield "docs/reference/cli.md", cli_page.render()
    for name, recording in PICTURES.items():
        yield name, terminal_picture.render(ROOT / recording)


def main(arguments: list[str]) -> int:
    """Write or check every page. Returns the exit status."""
    stale = []
    for name, text in pages():
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    if stale and "--check" in arguments:
        print(f"out of date: {', '.join(stale)}; run `make docs`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
