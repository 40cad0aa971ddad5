"""`cryo completion`: scripts for the shells, and quick answers to their requests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from cryostore.cli.exit_codes import OK
from cryostore.cli.reference import SHELLS
from cryostore.cli.verbs import VERBS, run

COVERS = ("cli/reference.py",)

CHECKS = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}


def completions(line):
    """Return the completions of a command line, as bash requests them, and the imported modules."""
    words = line.split(" ")
    environment = os.environ | {
        "_CRYO_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    probe = (
        "import atexit, sys; from cryostore.cli import main;"
        " atexit.register(lambda: print(*(n for n in sys.modules if n.startswith('cryostore.')), file=sys.stderr));"
        " main()"
    )
    done = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, text=True, check=False)
    return [line.partition(",")[2] for line in done.stdout.splitlines()], set(done.stderr.split())


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_accepts_its_script(capsys, tmp_path, shell):
    assert run(["completion", shell]) == OK
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    assert f"_CRYO_COMPLETE={shell}_complete" in script.read_text()
    if shutil.which(shell) is None:
        pytest.skip(f"this machine has no {shell}")
    done = subprocess.run([*CHECKS[shell], script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_verbs_are_offered_without_loading_them():
    found, loaded = completions("cryo ")
    assert found == sorted(VERBS)
    assert not loaded & {module for module, _ in VERBS.values()}
    assert completions("cryo rest")[0] == ["restore"]


def test_options_and_choices_are_offered():
    assert completions("cryo restore --over")[0] == ["--overwrite"]
    assert completions("cryo restore --overwrite n")[0] == ["never", "newer"]
    assert completions("cryo key ro")[0] == ["rotate"]


@pytest.fixture
def shell_folder(tmp_path):
    """A folder for $PATH with the `cryo` under test, and a home folder for the shells."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "cryo"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cryostore "$@"\n')
    program.chmod(0o755)
    return tmp_path


def shell(folder, command):
    """Return the output of a shell with the completion of cryo."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"this machine has no {command[0]}")
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder), "TERM": "dumb"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL
    )
    return done.stdout.replace("\r", "")


def test_fish_completes(shell_folder):
    script = "cryo completion fish | source; complete -C 'cryo rest'; complete -C 'cryo restore --overwrite n'"
    said = shell(shell_folder, ["fish", "--private", "-c", script])
    assert [line.partition("\t")[0] for line in said.splitlines()] == ["restore", "never", "newer"]


ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1= RPS1=; autoload -U compinit; compinit -u; source <(cryo completion zsh); echo R"EA"DY'
zpty -r shell said '*READY*'
zpty -w -n shell $'cryo resto\\t'
zpty -r shell said '*restore*'
print -r -- "$said"
zpty -d shell
"""


def test_zsh_completes(shell_folder):
    """On a terminal, which completion needs."""
    assert "cryo restore" in shell(shell_folder, ["zsh", "-f", "-c", ZSH])


def test_bash_completes(shell_folder):
    script = (
        "source <(cryo completion bash); COMP_WORDS=(cryo rest); COMP_CWORD=1; _cryo_completion cryo;"
        ' printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert shell(shell_folder, ["bash", "-c", script]).split() == ["restore"]
