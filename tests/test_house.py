"""Structure of the project that import contracts cannot state: libraries, start-up, folders, tests, pins."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from graphlib import TopologicalSorter
from statistics import median

import grimp
import pytest

from support import project

ENTRIES_MAX = 15
MEDIAN_LINES_MAX = 150
TESTS = project.ROOT / "tests"
PROJECT = tomllib.loads((project.ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Libraries that are never imported here: a dependency loads them by name.
NAMED_ONLY = {
    "httptools": "uvicorn's HTTP parser, chosen in its configuration",
    "uvloop": "uvicorn's event loop, chosen in its configuration",
}

# Libraries that are slow to import. No command needs them before its arguments are parsed.
HEAVY = {"asyncio", "cryptography", "http", "httptools", "msgspec", "sqlite3", "ssl", "uvicorn", "uvloop", "zstandard"}


def top_level_imports(path):
    """Yield the first name of every absolute import of a file, imports in functions included."""
    for node in ast.walk(project.syntax(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.partition(".")[0]


def third_party(path):
    """Return the third-party libraries that a file imports."""
    return set(top_level_imports(path)) - set(sys.stdlib_module_names) - {"cryostore"}


def test_every_library_is_declared_and_every_declared_library_is_used():
    declared = {re.split(r"[\[<>=~!; ]", entry)[0] for entry in PROJECT["project"]["dependencies"]}
    used = set().union(*(third_party(path) for path in project.source_modules().values()))
    assert sorted(used - declared) == []
    assert sorted(declared - used - set(NAMED_ONLY)) == []


def test_core_needs_only_the_standard_library_and_zstd():
    core = {module: path for module, path in project.source_modules().items() if module.startswith("cryostore.core")}
    found = {module: third_party(path) for module, path in core.items() if third_party(path)}
    assert found == {"cryostore.core.compression": {"zstandard"}}


@pytest.mark.parametrize("module", ["cryostore", "cryostore.core", "cryostore.cli", "cryostore.cli.verbs"])
def test_starting_up_loads_no_heavy_library(module):
    """`cryo --version` is quick, because verbs import heavy libraries only when they run."""
    probe = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert sorted(HEAVY & set(done.stdout.split())) == []


def is_migration(path):
    return path.parent.name == "migrations"


def test_no_folder_is_crowded():
    """A reader sees the content of a folder at a glance. Folders of migrations may grow."""
    modules = [path for path in project.source_modules().values() if not is_migration(path)]
    found = {}
    for folder in {folder for path in modules for folder in (path.parent, path.parent.parent)}:
        names = {path.name for path in folder.iterdir() if path.name not in {"__init__.py", "__pycache__"}}
        names = {name for name in names if name.endswith(".py") or list((folder / name).glob("*.py"))}
        if len(names) > ENTRIES_MAX and project.SOURCE in (folder, *folder.parents):
            found[project.shown(folder)] = len(names)
    assert found == {}


def counts_as_entry(path):
    """Return whether a path below tests/ counts: golden data, conftest.py, and the rooms of the packages do not."""
    is_golden_data = TESTS / "golden" in path.parents and path.suffix != ".py"
    mirrors_package = path.parent == TESTS and (project.SOURCE / path.name).is_dir()
    return not is_golden_data and not mirrors_package and path.name not in {"__init__.py", "conftest.py"}


def test_no_folder_of_tests_is_crowded():
    """The same holds for tests, whose folders mirror those of the source."""
    files = [path for path in project.files() if TESTS in path.parents and counts_as_entry(path)]
    entries = {entry for path in files for entry in (path, *path.parents) if TESTS in entry.parents}
    counts = Counter(entry.parent for entry in filter(counts_as_entry, entries))
    crowded = {project.shown(folder): count for folder, count in counts.items() if count > ENTRIES_MAX}
    assert crowded == {}


def test_most_modules_are_short():
    lengths = [len(path.read_text(encoding="utf-8").splitlines()) for path in project.source_modules().values()]
    assert median(lengths) <= MEDIAN_LINES_MAX


def test_there_are_no_import_cycles():
    """Imports for typing count, too. The package loads its public functions lazily, which is the exception."""
    graph = grimp.build_graph("cryostore")
    graph.remove_import(importer="cryostore", imported="cryostore.client.backupstorage")
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(imports).prepare()


def has_behaviour(path):
    """Return whether a module has a function with code. Other modules only declare."""
    functions = (
        node for node in ast.walk(project.syntax(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    statements = (statement for function in functions for statement in function.body)
    return not all(isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) for one in statements)


def covered():
    """Yield each module that a test file of another name lists in `COVERS`, with that file."""
    for path in sorted(TESTS.rglob("*.py")):
        for node in project.syntax(path).body:
            if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["COVERS"]:
                yield from ((module, path) for module in ast.literal_eval(node.value))


def test_every_module_with_behaviour_has_tests():
    """The tests are in the file of the same name in the same room, or in one that lists the module in `COVERS`."""
    named = {module for module, _ in covered()}
    missing = []
    for path in project.source_modules().values():
        module = path.relative_to(project.SOURCE)
        if path.name.startswith("__") or is_migration(path) or not has_behaviour(path):
            continue
        if module.as_posix() not in named and not (TESTS / module.parent / f"test_{path.name}").exists():
            missing.append(module.as_posix())
    assert missing == []


def test_tests_name_only_modules_that_exist():
    assert [(module, project.shown(path)) for module, path in covered() if not (project.SOURCE / module).exists()] == []


def test_selections_of_tests_name_existing_paths():
    """A wrong path in the Makefile or in `SHARES` would select other tests than intended, without an error."""
    makefile = (project.ROOT / "Makefile").read_text(encoding="utf-8")
    selections = re.findall(r"^(?:BRIEF|QUICK) := .*?tests/,(.*?)\)$", makefile, re.MULTILINE | re.DOTALL)
    assert len(selections) == 2
    shares = re.findall(r'^    "([\w/]+\.py)": \d', (TESTS / "conftest.py").read_text(), re.MULTILINE)
    names = [name for text in selections for name in text.replace("\\", " ").split()] + shares
    assert shares
    assert [name for name in names if not (TESTS / name).exists()] == []


def test_constraints_pin_exact_versions():
    """Each line of constraints/ is an exact version or an include."""
    loose = [
        f"{path.name}: {line}"
        for path in (project.ROOT / "constraints").glob("*.txt")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line and not re.fullmatch(r"#.*|-r [\w.-]+|[\w.-]+==[\w.]+", line)
    ]
    assert loose == []


def test_the_package_is_marked_as_typed():
    assert (project.SOURCE / "py.typed").exists()
