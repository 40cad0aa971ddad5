"""The examples in contrib/: systemd accepts the units, every `cryo` command is valid, and none has a secret."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess

import pytest

from cryostore.cli.verbs import cryo
from support.project import ROOT, shown

UNITS = sorted((ROOT / "contrib" / "systemd").iterdir())
FILES = [path for path in sorted((ROOT / "contrib").rglob("*")) if path.is_file()]
CALL = re.compile(r"\bcryo ((?:backup|restore|serve|status|doctor)\b[^\n'>|)]*?)(?= 2>|$|\))", re.MULTILINE)


def calls(path):
    """Return the arguments of every `cryo` command in a file."""
    return [shlex.split(line) for line in CALL.findall(path.read_text(encoding="utf-8"))]


def test_systemd_accepts_the_units(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("this machine has no systemd-analyze")
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/usr/local/bin/cryo", "/bin/true")
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "cryo" in line]  # without problems of this machine's units
    assert (done.returncode, ours) == (0, [])


def test_every_timer_has_its_service():
    names = {unit.name for unit in UNITS}
    assert {unit.with_suffix(".service").name for unit in UNITS if unit.suffix == ".timer"} <= names


@pytest.mark.parametrize("path", [path for path in FILES if calls(path)], ids=shown)
def test_every_command_line_is_valid(path):
    for verb, *arguments in calls(path):
        command = cryo.get_command(None, verb)
        command.make_context(verb, [argument for argument in arguments if argument != "..."])


def test_there_are_command_lines_to_check():
    assert {verb for path in FILES for verb, *_ in calls(path)} == {"backup", "serve", "status"}


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_no_secret_is_in_an_example(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"AKIA|PASSPHRASE=", text)
    values = re.findall(r"(?:PASSWORD|SECRET_ACCESS_KEY) *[:=] *(\S*)", text)
    assert {value for value in values if not re.fullmatch(r'""|\.\.\.,?|\$\{\w+:\?see', value)} <= {""}
