"""`cryo completion`: the scripts are the shells' own language, and what they ask for is answered at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from cryostore.cli.completion import SHELLS
from cryostore.cli.verbs import OK, VERBS, run

CHECKS = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}


def asked(line):
    """What is offered behind the last word of a command line, as bash asks for it; and the modules that took."""
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
def test_each_shell_takes_its_script(capsys, tmp_path, shell):
    assert run(["completion", shell]) == OK
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    assert f"_CRYO_COMPLETE={shell}_complete" in script.read_text()
    if shutil.which(shell) is None:
        pytest.skip(f"this machine has no {shell}")
    done = subprocess.run([*CHECKS[shell], script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_verbs_are_offered_without_loading_them():
    found, loaded = asked("cryo ")
    assert found == sorted(VERBS)
    assert not loaded & {module for module, _ in VERBS.values()}
    assert asked("cryo rest")[0] == ["restore"]


def test_options_and_choices_are_offered():
    assert asked("cryo restore --over")[0] == ["--overwrite"]
    assert asked("cryo restore --overwrite n")[0] == ["never", "newer"]
    assert asked("cryo key ro")[0] == ["rotate"]
