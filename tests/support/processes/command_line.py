"""Command lines of `cryo`: carried out in this process or as processes, and their output read."""

from __future__ import annotations

import json
import os
import subprocess

from cryostore.cli.verbs import run
from support.processes.serving import CRYO

SECONDS_MAX = 60


def carry_out(capsys, *arguments):
    """Run a command in this process; return its exit code, stdout and stderr."""
    code = run([os.fspath(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


class CryoProcess:
    """`cryo` as processes, on a store of its own."""

    def __init__(self, folder):
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CRYO"))}
        self.environment = kept | {"XDG_STATE_HOME": str(folder / "state"), "CRYO_DATA_DIR": str(folder / "store")}

    def start(self, *arguments, **more):
        more |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": self.environment, "cwd": self.folder}
        return subprocess.Popen([*CRYO, *map(os.fspath, arguments)], **more)

    def __call__(self, *arguments, code=0, stdin=b""):
        """Run a command, check its exit code, and return stdout as bytes and stderr as text."""
        process = self.start(*arguments, stdin=subprocess.PIPE)
        out, err = process.communicate(stdin, timeout=SECONDS_MAX)
        assert process.returncode == code, err.decode()
        return out, err.decode()

    def summary(self, *arguments, **more):
        """Run a backup and return its summary."""
        return json.loads(self("backup", "--json", *arguments, **more)[0])

    def points(self):
        """Return the lines of `cryo points --json`."""
        return self("points", "--json")[0].splitlines()
