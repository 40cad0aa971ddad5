"""The house beyond what the import contracts of pyproject.toml can say: libraries, start-up, tests, pins."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib

import pytest

from support import tree

PROJECT = tomllib.loads((tree.ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Libraries that a dependency is started with by name, never imported.
NAMED_ONLY = {
    "httptools": "uvicorn's HTTP parser, chosen in its configuration",
    "uvloop": "uvicorn's event loop, chosen in its configuration",
}


def top_level_imports(path):
    """The first names of every absolute import of a file, wherever it stands."""
    for node in ast.walk(tree.syntax(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.partition(".")[0]


def third_party(path):
    """The libraries a file imports that are neither Python's nor ours."""
    return set(top_level_imports(path)) - set(sys.stdlib_module_names) - {"cryostore"}


def test_every_library_is_declared_and_every_declared_library_is_used():
    declared = {re.split(r"[\[<>=~!; ]", entry)[0] for entry in PROJECT["project"]["dependencies"]}
    used = set().union(*(third_party(path) for path in tree.source_modules().values()))
    assert sorted(used - declared) == []
    assert sorted(declared - used - set(NAMED_ONLY)) == []


def test_core_needs_only_the_standard_library_and_zstd():
    core = {module: path for module, path in tree.source_modules().items() if module.startswith("cryostore.core")}
    found = {module: third_party(path) for module, path in core.items() if third_party(path)}
    assert found == {"cryostore.core.compression": {"zstandard"}}


@pytest.mark.parametrize("module", ["cryostore", "cryostore.core", "cryostore.cli", "cryostore.cli.verbs"])
def test_starting_up_loads_no_library_but_the_command_line(module):
    """`cryo --version` answers at once, because nothing heavy is imported before a verb needs it."""
    probe = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    heavy = {
        "asyncio",
        "cryptography",
        "http",
        "httptools",
        "msgspec",
        "sqlite3",
        "ssl",
        "uvicorn",
        "uvloop",
        "zstandard",
    }
    assert sorted(heavy & set(done.stdout.split())) == []


def test_every_layer_has_its_tests():
    """What src/cryostore/<layer>/ does is shown in tests/<layer>/."""
    layers = [path.parent.name for path in tree.SOURCE.glob("*/__init__.py")]
    assert [layer for layer in layers if not list((tree.ROOT / "tests" / layer).rglob("test_*.py"))] == []


def test_the_environment_pins_everything_it_installs():
    """Every line of constraints/ is an exact version or an include."""
    loose = [
        f"{path.name}: {line}"
        for path in (tree.ROOT / "constraints").glob("*.txt")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line and not re.fullmatch(r"#.*|-r [\w.-]+|[\w.-]+==[\w.]+", line)
    ]
    assert loose == []


def test_the_package_says_that_it_is_typed():
    assert (tree.SOURCE / "py.typed").exists()
