"""Recorder of the terminal session in the README's picture: real commands on a pseudo-terminal, asciinema's format.

    scripts/record_session.py > docs/pictures/first-backup.cast

`make docs` draws the recording (`terminal_picture`). Record it anew when the output of these commands changes:
tests/compat/test_readme.py compares it with a run. The recording has other names of folders and of the machine.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import socket
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, LINES = 104, 30
COMMANDS = (
    "cryo backup /srv/documents",
    "echo 'Call the plumber.' >> /srv/documents/todo",
    "cryo backup /srv/documents",
    "cryo points",
    "cryo find todo",
    "cryo restore latest /srv/restored",
    "cryo verify latest --data",
)
READ_BYTES = 65536
AGE_SECONDS = 3


def record(commands: Sequence[str], folder: Path, *, age_seconds: float = 0) -> Iterator[list[float | str]]:
    """Run the commands one after the other, with /srv and /mnt below `folder`. Yields the terminal output as events.

    `age_seconds` is the age of the files at the backup. A run reads very young files again.
    """
    (folder / "mnt").mkdir()
    shutil.copytree(ROOT / "docs", folder / "srv" / "documents")
    (folder / "srv" / "documents" / "todo").write_text("Feed the cat.\n", encoding="utf-8")
    time.sleep(age_seconds)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "TERM": "xterm",
        "TZ": "UTC",
        "CRYO_DATA_DIR": str(folder / "mnt" / "backup"),
    }
    began = time.monotonic()
    for command in commands:
        yield [time.monotonic() - began, "o", f"$ {command}\r\n"]
        for text in _run(command.replace("/srv", f"{folder}/srv"), environment):
            shown = text.replace(str(folder), "").replace(socket.gethostname(), "laptop")
            yield [time.monotonic() - began, "o", shown]


def _run(command: str, environment: dict[str, str]) -> Iterator[str]:
    """Run a command on a terminal of its own. Yields its output, line by line."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve("/bin/sh", ["sh", "-c", command], environment)  # noqa: S606 - the command is one of those above
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    held = b""
    while True:
        try:
            data = os.read(terminal, READ_BYTES)
        except OSError:  # the command has ended and closed its terminal
            break
        *whole, held = (held + data).split(b"\n")
        yield from (line.decode() + "\n" for line in whole)
    if held:
        yield held.decode()
    os.close(terminal)
    os.waitpid(child, 0)


def main() -> None:
    """Write a new recording to stdout."""
    print(json.dumps({"version": 2, "width": COLUMNS, "height": LINES, "title": "cryo"}))
    with tempfile.TemporaryDirectory() as folder:
        for moment, kind, text in record(COMMANDS, Path(folder), age_seconds=AGE_SECONDS):
            print(json.dumps([round(float(moment), 3), kind, text], ensure_ascii=False))


if __name__ == "__main__":
    main()
