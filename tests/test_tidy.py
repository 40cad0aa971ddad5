"""Style of the project: sizes, names, leftovers, and the modules that may use the clock, randomness and print."""

from __future__ import annotations

import ast
import re
import statistics

import pytest

from support import project

FILE_LINES_MAX = 500
FILE_LINES_MEDIAN_MAX = 150
FUNCTION_LINES_MAX = 70
FUNCTION_LINES_MEDIAN_MAX = 10
TRACKED_BYTES_MAX = 200_000
GOLDEN = project.ROOT / "tests" / "golden" / "stores"  # old catalogs: SQLite gives each of many tables a page
GOLDEN_BYTES_MAX = 500_000

EMPTY_NAMES = {"base", "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}

# Sources of the real clock and of randomness. Other modules take `now` and `new_id` as parameters, so that a test can
# freeze the clock and count the ids. Monotonic time is allowed everywhere: it measures intervals only.
CLOCK_AND_RANDOMNESS = {
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "os.getrandom",
    "os.urandom",
    "random",
    "secrets",
    "time.time",
    "time.time_ns",
    "uuid.uuid1",
    "uuid.uuid4",
}
CLOCK_AND_RANDOMNESS_ALLOWED = {
    "cryostore.agent.encryption.cipher": "keys and nonces: a caller that chooses them could repeat them",
    "cryostore.chunks.cipher": "nonces: a caller that chooses them could repeat them",
    "cryostore.chunks.keyring.master_keys": "new keys: a caller that chooses them could repeat them",
    "cryostore.client.retry": "random waits between attempts, so that not all clients return at once",
    "cryostore.core.ids": "the one source of identifiers",
    "cryostore.core.time": "the one clock",
    "cryostore.service.opening.assembly": "the secrets of a new store",
}

# Both patterns are assembled, so that this file does not match itself.
LEFTOVER = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
MACHINE = re.compile(
    r"/(?:root|home|Users|work)/[\w.]|(?:py" + r"pi\.org|python" + r"hosted|registry\.npm" + r"js|crates\." + r"io)"
)

PYTHON_FILES = [path for path in project.files() if path.suffix == ".py"]


def functions(path):
    """Yield the name and the number of lines of every function of a file."""
    for node in ast.walk(project.syntax(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_every_module_has_a_docstring():
    silent = [project.shown(path) for path in PYTHON_FILES if not ast.get_docstring(project.syntax(path))]
    assert silent == []


def test_files_are_short():
    lengths = {project.shown(path): len(path.read_text().splitlines()) for path in project.source_modules().values()}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX} == {}
    assert statistics.median(lengths.values()) <= FILE_LINES_MEDIAN_MAX


def test_functions_are_short():
    found = [
        (project.shown(path), name, lines)
        for path in project.source_modules().values()
        for name, lines in functions(path)
    ]
    assert [entry for entry in found if entry[2] > FUNCTION_LINES_MAX] == []
    assert statistics.median(lines for _, _, lines in found) < FUNCTION_LINES_MEDIAN_MAX


def test_no_file_has_an_empty_name():
    named = [path for path in PYTHON_FILES if EMPTY_NAMES & {part.lower() for part in path.with_suffix("").parts[-2:]}]
    assert [project.shown(path) for path in named] == []


def test_only_the_command_line_and_core_print():
    printing = [
        module
        for module, path in project.source_modules().items()
        if not module.startswith(("cryostore.cli", "cryostore.core"))
        for node in ast.walk(project.syntax(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def clock_and_randomness(module):
    """Return the names of the clock and of randomness that a module uses, with members of `random` and `secrets`."""
    mentioned = project.referenced(project.syntax(project.source_modules()[module]))
    return {name for name in mentioned if CLOCK_AND_RANDOMNESS & {name, name.partition(".")[0]}}


def test_clock_and_randomness_are_passed_in():
    offenders = {module: clock_and_randomness(module) for module in project.source_modules()}
    offenders = {module: names for module, names in offenders.items() if names}
    assert {m: names for m, names in offenders.items() if m not in CLOCK_AND_RANDOMNESS_ALLOWED} == {}
    assert set(CLOCK_AND_RANDOMNESS_ALLOWED) <= set(offenders), "an allowed module that no longer needs it"


@pytest.mark.parametrize("pattern", [LEFTOVER, MACHINE], ids=["unfinished work", "one machine"])
def test_no_file_has_leftovers(pattern):
    """Leftovers are marks of unfinished work, paths of home directories, and addresses of package registries."""
    found = [
        f"{project.shown(path)}:{number}"
        for path, text in project.texts().items()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_no_tracked_file_is_large():
    bounds = {path: GOLDEN_BYTES_MAX if path.is_relative_to(GOLDEN) else TRACKED_BYTES_MAX for path in project.files()}
    assert [project.shown(path) for path, bytes_max in bounds.items() if path.stat().st_size > bytes_max] == []
