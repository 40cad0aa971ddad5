"""The list of commands: help, version, errors as text and JSON, exit codes, start-up time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from cryostore import __version__
from cryostore.cli import progress, verbs
from cryostore.cli.verbs import VERBS, run
from cryostore.core.errors import ConfigurationError


def test_the_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"cryo {__version__}\n"


def test_help_lists_every_verb_and_the_exit_codes(capsys):
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in VERBS)
    assert "Exit codes: 0 success, 1 completed with issues, 2 failure or usage error, 130 interrupted." in " ".join(
        out.split()
    )


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(capsys, verb):
    assert run([verb, "--help"]) == 0
    assert "Exit codes" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["nothing"], ["--nothing"], ["serve", "--workers", "many"], ["openapi", "x"]]
)
def test_a_usage_error_has_a_hint(capsys, arguments):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    error, hint = err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: cryo ")
    assert hint.endswith("--help lists the options")


def test_errors_as_json(capsys):
    assert run(["--json", "serve", "--listen", "nowhere"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err).keys() == {"error", "hint"}


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigurationError("no"), 2, "error: no\nhint: cryo serve --help lists the options\n"),
        (ConfigurationError("no", hint="yes"), 2, "error: no\nhint: yes\n"),
        (click.FileError("f", "unreadable"), 2, "error: Could not open file 'f': unreadable\n"),
        (click.Abort(), 130, "interrupted\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_have_a_message_and_an_exit_code(monkeypatch, capsys, error, code, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(verbs.cryo, "main", fail)
    assert run(["serve"]) == code
    assert capsys.readouterr().err == said


def test_a_command_may_return_its_exit_code(monkeypatch):
    monkeypatch.setattr(verbs.cryo, "main", lambda *_, **__: 1)
    assert run(["serve"]) == 1


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "cryostore", "--version"], capture_output=True, check=True, text=True)
    assert done.stdout == f"cryo {__version__}\n"


def test_the_version_is_printed_at_once():
    """150 ms beyond Python's own start. The quickest of many runs counts, since other processes run beside it."""

    def seconds(*arguments):
        start = time.monotonic()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        return time.monotonic() - start

    python = min(seconds("-c", "") for _ in range(5))
    assert any(seconds("-m", "cryostore", "--version") - python < 0.15 for _ in range(40))


def test_a_command_imports_libraries_only_when_it_runs():
    """Importing all commands, as `cryo man` does, imports no library, except for `serve`, which shows defaults."""
    modules = [module for name, (module, _) in VERBS.items() if name != "serve"]
    heavy = {"cryptography", "msgspec", "pyfastcdc", "sqlite3", "ssl", "uvicorn", "zstandard"}
    probe = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def main_with(run):
    """Start the command as a process with `run` replaced by a lambda."""
    code = f"import cryostore.cli.verbs as verbs; from cryostore.cli import main; verbs.run = {run}; main()"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_an_unexpected_error_exits_with_2():
    """Exit code 1 would mean that the run completed with issues."""
    process = main_with("lambda arguments: 1 / 0")
    assert "ZeroDivisionError" in process.communicate()[1]
    assert process.returncode == 2


def test_a_closed_pipe_is_no_error_message():
    process = main_with("lambda arguments: print('x' * 10_000_000) or 0")
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait() == 1


def test_a_full_disk_behind_stdout_is_reported_in_one_line():
    code = (
        "import cryostore.cli.verbs as verbs; from cryostore.cli import main\n"
        "verbs.run = lambda _: print('x') or 0; main()"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: stdout: No space left on device\n")


def test_another_full_disk_is_not_reported_as_stdout():
    process = main_with("lambda arguments: (_ for _ in ()).throw(OSError(28, 'full', 'somewhere'))")
    assert "OSError" in process.communicate()[1]
    assert process.returncode == 2


def test_closed_standard_streams_are_not_reused():
    """Otherwise the first opened file would become stdout, and receive the output."""
    code = (
        "import cryostore.cli.verbs as verbs; from cryostore.cli import main; import os, sys;"
        "verbs.run = lambda _: print('x') or sys.exit(os.open('/', os.O_RDONLY)); main()"
    )
    done = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=False)
    assert done.returncode > 2


def test_a_ctrl_c_while_it_starts_shows_no_traceback(tmp_path):
    (tmp_path / "click.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from cryostore.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


def test_a_ctrl_c_is_explained(monkeypatch, capsys):
    """Also after click has raised another error from it."""

    def interrupt(*_, **__):
        try:
            with progress.interrupted("nothing was done"):
                signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise click.Abort from error

    monkeypatch.setattr(verbs.cryo, "main", interrupt)
    assert run(["backup"]) == 130
    assert capsys.readouterr().err == "interrupted: nothing was done\n"
