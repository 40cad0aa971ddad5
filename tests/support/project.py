"""The modules and text files of this project, for tests that read the project itself."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "cryostore"


@cache
def files() -> tuple[Path, ...]:
    """Return every file that is tracked or could be added; without git, every file outside dot folders."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        names = [os.fsdecode(name) for name in listed.split(b"\0") if name]
        return tuple(sorted({path for path in (ROOT / name for name in names) if path.is_file()}))
    return tuple(sorted(path for path in ROOT.rglob("*") if path.is_file() and not _ignored(path)))


def _ignored(path: Path) -> bool:
    folders = path.relative_to(ROOT).parts[:-1]
    return any(folder.startswith(".") or folder in {"node_modules", "__pycache__"} for folder in folders)


@cache
def texts() -> dict[Path, str]:
    """Return every UTF-8 text file with its content."""
    found = {}
    for path in files():
        try:
            found[path] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


@cache
def source_modules() -> dict[str, Path]:
    """Return every module of src by its dotted name; a package has its own name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def syntax(path: Path) -> ast.Module:
    """Return the syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def fenced(page: str, marker: str) -> str:
    """Return the first fenced block after the comment `<!-- marker -->` of a page, so that a test can run it.

    Raises ValueError if the page has no such comment or no block after it.
    """
    _, found, rest = (ROOT / page).read_text(encoding="utf-8").partition(f"<!-- {marker} -->")
    block = re.search(r"^```\w*\n(.*?)^```", rest, re.MULTILINE | re.DOTALL)
    if not found or block is None:
        raise ValueError(f"{page} has no fenced block after <!-- {marker} -->")
    return block[1]


def shown(path: Path) -> str:
    """Return a path for failure messages, relative to the root of the project."""
    return path.relative_to(ROOT).as_posix()


def imported(tree: ast.Module) -> dict[str, str]:
    """Return the meaning of each imported name: `import time as _time` gives {"_time": "time"}."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def referenced(tree: ast.Module) -> set[str]:
    """Yield the full dotted names of imported things that the code mentions, such as `time.time` or `os.urandom`."""
    names = imported(tree)
    found = set(names.values())
    for node in ast.walk(tree):
        parts: list[str] = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if parts and isinstance(inner, ast.Name) and inner.id in names:
            found.add(".".join([names[inner.id], *reversed(parts)]))
    return found
