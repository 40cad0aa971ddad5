"""Keyring from a command: programs that print one, fail, hang or print too much."""

from __future__ import annotations

import base64
import os
import threading
import time

import pytest

from conformance.keyring import KeyringSourceTests
from cryostore.chunks.keyring import sources
from cryostore.chunks.keyring.sources import COMMAND_PAUSE_SECONDS, CommandKeyring
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from support.stores.keyrings import BOTH, OLD_ALONE, printing, program, write_keyring

COVERS = ("chunks/keyring/sources.py",)


class TestCommandKeyring(KeyringSourceTests):
    @pytest.fixture
    def document(self):
        return BOTH

    @pytest.fixture
    def ring(self, tmp_path, document):
        write_keyring(tmp_path / "document", document)
        return CommandKeyring(printing(tmp_path / "document"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "document"


class Now:
    """A monotonic clock that does not advance."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


def test_the_output_may_be_base64(path):
    path.write_bytes(base64.encodebytes(BOTH.encode()))
    assert CommandKeyring(printing(path)).document().is_same(BOTH)


PROGRAMS = {
    "fails": ("import sys; print('s3cret'); sys.exit(3)", "exit code 3"),
    "fails aloud": ("import sys; sys.stderr.write('s3cret' * 100_000); sys.exit(1)", "exit code 1"),
    "is killed": ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "signal 15"),
    "prints nothing": ("", "no keyring document"),
    "prints garbage": ("print('s3cret')", "no keyring document"),
    "prints bytes": ("import sys; sys.stdout.buffer.write(bytes(range(256)))", "no keyring document"),
    "never stops printing": ("while True: print('s3cret' * 10_000)", "far more"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_output_without_a_keyring_is_an_error_with_a_hint(tmp_path, name):
    text, reason = PROGRAMS[name]
    with pytest.raises(ConfigurationError, match=reason) as caught:
        CommandKeyring([*program(tmp_path / "program.py", text), "s3cret argument"])
    assert "run it by hand" in caught.value.hint
    for shown in (
        caught.value.message,
        caught.value.hint,
        repr(caught.value.__cause__),
        repr(caught.value.__context__),
    ):
        assert "s3cret" not in shown


@pytest.mark.parametrize("arguments", [["no-such-program-anywhere"], ["/etc/hostname"], ["/"]])
def test_a_program_that_cannot_be_started_is_an_error(arguments):
    with pytest.raises(ConfigurationError, match="cannot be started"):
        CommandKeyring(arguments)


@pytest.mark.parametrize(
    "text",
    ["import time; time.sleep(600)", "import os, time; os.close(1); time.sleep(600)",
     "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"],
    ids=["hangs", "closes its stdout and hangs", "leaves a child that keeps its stdout open"],
)  # fmt: skip
def test_a_hanging_program_is_killed_with_its_children(tmp_path, text):
    begun = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"did not finish within 0\.5 s"):
        CommandKeyring(program(tmp_path / "program.py", text), run_seconds_max=0.5)
    assert time.monotonic() - begun < 60


def test_it_runs_without_a_shell_and_without_stdin(tmp_path, path):
    write_keyring(path, BOTH)
    text = f"import sys; assert sys.argv[1] == '$HOME; *' and not sys.stdin.read(); print(open({str(path)!r}).read())"
    assert CommandKeyring([*program(tmp_path / "program.py", text), "$HOME; *"]).document().is_same(BOTH)


def test_a_missing_key_starts_the_program_at_limited_intervals(path):
    """The program runs again when a key is missing, but at most once every few seconds."""
    now = Now()
    write_keyring(path, OLD_ALONE)
    ring = CommandKeyring(printing(path), now=now)
    with pytest.raises(KeyUnavailableError):
        ring.key("new")
    write_keyring(path, BOTH)
    now.seconds += COMMAND_PAUSE_SECONDS - 0.1
    with pytest.raises(KeyUnavailableError):
        ring.key("new")
    now.seconds += 0.1
    assert ring.key("new").is_same(BOTH.keys["new"])
    assert ring.active().key_id == "new"
    path.unlink()
    now.seconds += COMMAND_PAUSE_SECONDS
    with pytest.raises(KeyUnavailableError, match="no master key third, and the command /bin/cat .* exit code 1"):
        ring.key("third")
    assert ring.key("old").is_same(BOTH.keys["old"])


def test_a_hanging_program_times_out(tmp_path, path):
    """Requests for its keys fail while it runs. They share one run, and the keys are available after its end."""
    now, lines = Now(), tmp_path / "lines"
    write_keyring(path, OLD_ALONE)
    os.mkfifo(tmp_path / "fifo")
    text = (
        f"open({str(lines)!r}, 'a').write('run\\n')\n"
        f"if len(open({str(lines)!r}).readlines()) > 1: open({str(tmp_path / 'fifo')!r}).read()\n"
        f"print(open({str(path)!r}).read())"
    )
    ring = CommandKeyring(program(tmp_path / "program.py", text), now=now, wait_seconds_max=0.05)
    write_keyring(path, BOTH)
    now.seconds += COMMAND_PAUSE_SECONDS
    for _ in range(3):
        with pytest.raises(KeyUnavailableError):
            ring.key("new")
        now.seconds += 1  # longer than any request waits
    run = ring._run
    (tmp_path / "fifo").write_text("go on")
    run.join()
    assert ring.key("new").is_same(BOTH.keys["new"])
    assert lines.read_text() == "run\n" * 2


def test_simultaneous_requests_share_one_run(tmp_path, path):
    now, lines = Now(), tmp_path / "lines"
    write_keyring(path, OLD_ALONE)
    text = f"open({str(lines)!r}, 'a').write('run\\n')\nprint(open({str(path)!r}).read())"
    ring = CommandKeyring(program(tmp_path / "program.py", text), now=now)
    write_keyring(path, BOTH)
    now.seconds += COMMAND_PAUSE_SECONDS
    found = []
    threads = [threading.Thread(target=lambda: found.append(ring.key("new"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [key.key_id for key in found] == ["new"] * 8
    assert lines.read_text() == "run\n" * 2


def test_the_output_is_bounded(tmp_path, path, monkeypatch):
    monkeypatch.setattr(sources, "COMMAND_OUTPUT_BYTES_MAX", 100)
    write_keyring(path, BOTH)
    with pytest.raises(ConfigurationError, match="far more"):
        CommandKeyring(printing(path))
