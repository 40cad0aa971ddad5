"""Output: one module prints, it escapes text from outside, and a run that waits for a reader can be interrupted."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.cli import output
from cryostore.cli.exit_codes import INTERRUPTED
from cryostore.cli.verbs import run
from cryostore.core.errors import ConfigurationError
from cryostore.core.time import FrozenClock
from cryostore.server.monitoring.log import Log
from support import project
from support.archives.agent import write
from support.processes.serving import CRYO
from support.waiting import until

SECONDS_MAX = 30
PIPE_BYTES = 4096
PRINTS = {"print", "input", "breakpoint"}
WRITES = {
    "click": {"echo", "secho", "echo_via_pager", "prompt", "confirm", "pause", "clear", "progressbar"},
    "stdout": {"write", "writelines", "buffer"},
    "stderr": {"write", "writelines", "buffer"},
    "traceback": {"print_exc", "print_exception", "print_stack", "print_tb"},
    "sys": {"excepthook", "displayhook", "__stdout__", "__stderr__"},
}
EVIL = "evil\x1b[2J\x1b]0;x\x07\x9b31m\u202e\u2066\x7f\r\nerror: forged\u2028\x85\t"


def printing(path):
    """Yield the numbers of the lines that print in a module."""
    for node in ast.walk(project.syntax(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PRINTS:
            yield node.lineno
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if node.attr in WRITES.get(owner, ()):
                yield node.lineno


def test_one_place_prints():
    found = {name: list(printing(path)) for name, path in project.source_modules().items()}
    assert len(found.pop("cryostore.cli.output")) > 5
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_only_paragraph_joins_lines():
    """`paragraph` escapes each line. With a join elsewhere, a name could start a line."""
    joined = [
        f"{name}:{node.lineno}"
        for name, path in project.source_modules().items()
        if name.startswith("cryostore.cli.") and name not in ("cryostore.cli.output", "cryostore.cli.reference")
        for node in ast.walk(project.syntax(path))
        if isinstance(node, ast.Attribute)
        and node.attr == "join"
        and isinstance(node.value, ast.Constant)
        and node.value.value == "\n"
    ]
    assert joined == []


@given(st.text())
def test_a_line_stays_one_line_of_printable_text(text):
    assert output.visible(text).isprintable()
    assert output.paragraph([text]).isprintable()


def test_printable_text_is_unchanged():
    assert output.visible("ä → 日本 \\x1b 'quoted'") == "ä → 日本 \\x1b 'quoted'"
    assert output.visible("a\x1b\x9b\u202e\n\x7f") == r"a\x1b\x9b\u202e\n\x7f"


@pytest.mark.parametrize("print_it", [output.show, output.show_now, output.tell, output.tell_over_progress])
def test_every_output_function_escapes(capsys, print_it):
    print_it(EVIL, *([] if print_it is output.tell_over_progress else [EVIL]))
    said = capsys.readouterr()
    lines = (said.out + said.err).splitlines()
    assert len(lines) == (1 if print_it is output.tell_over_progress else 2)
    assert all(line.isprintable() for line in lines)


def test_json_is_printable_ascii(capsys):
    output.say({EVIL: EVIL})
    output.tell_fact([EVIL])
    said = capsys.readouterr()
    assert json.loads(said.out) == {EVIL: EVIL}
    assert all(line.isascii() and line.isprintable() for line in said.out.splitlines() + said.err.splitlines())


def test_log_lines_are_escaped(tmp_path):
    with (tmp_path / "log").open("wb") as file:
        log = Log(file.fileno(), clock=FrozenClock())
        log.write("error", EVIL, message=EVIL, good="ä 日本")
        log.close()
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.isprintable()
    assert json.loads(line)["message"] == EVIL
    assert "ä 日本" in line


def test_errors_are_escaped(capsys, monkeypatch):
    def fail(*_, **__):
        raise ConfigurationError(EVIL, hint=EVIL)

    monkeypatch.setattr("cryostore.cli.verbs.cryo.main", fail)
    assert run([]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


POINT = {"BackupVaultName": "v", "RecoveryPointArn": "arn:x:y:z:1:recovery-point:ID", "Status": "COMPLETED"}
POINT |= {"ResourceName": EVIL}


def unread(fd):
    """Return the number of unread bytes in a pipe."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), "little")


@pytest.fixture
def listing(tmp_path):
    """A listing that waits for its reader: the process, and the read end of the pipe."""
    write(tmp_path / "source", {"n" * 200 + str(number): b"" for number in range(200)})
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path / "state"), "CRYO_DATA_DIR": str(tmp_path / "data")}
    subprocess.run([*CRYO, "backup", tmp_path / "source"], env=environment, check=True, capture_output=True)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    command = [*CRYO, "ls", "latest"]
    with (
        os.fdopen(reader, "rb") as read,
        subprocess.Popen(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True) as process,
    ):
        os.close(writer)
        until(lambda: unread(reader) == PIPE_BYTES)
        yield process, read
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_waits_for_a_reader_can_be_interrupted(listing, number):
    process, _ = listing
    process.send_signal(number)
    assert process.wait(SECONDS_MAX) == INTERRUPTED
    assert process.stderr.read().strip() == "interrupted"


WRITER = """
import io, time
from cryostore.cli.output import InterruptibleOutput
from cryostore.core import interrupts
stream = io.BufferedWriter(InterruptibleOutput(1))
for number in range(200):
    with interrupts.deferred():
        try:
            stream.write(b"%d\\n" % number)
            stream.flush()
            while True:
                interrupts.check()
                time.sleep(0.001)
        except KeyboardInterrupt:
            stream.flush()
    interrupts.restore_handlers()
"""


def test_a_part_that_was_written_as_ctrl_c_came_is_not_written_again():
    """The reader interrupts the writer as soon as it has read a line, often while the writer still writes it."""
    with subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE, bufsize=0) as process:
        lines = []
        for line in process.stdout:
            lines.append(int(line))
            process.send_signal(signal.SIGINT)
    assert lines == list(range(200))


def test_a_slow_reader_gets_everything(listing):
    process, read = listing
    assert len(read.read().splitlines()) == 200
    assert process.wait(SECONDS_MAX) == 0
