"""`cryo backup`, `cryo cat` and `cryo restore` of streams, commands and disks, as processes; some are killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from cryostore.agent.streams.device import BLOCK_BYTES
from cryostore.core.limits import MIB
from support.waiting import until

SECONDS_MAX = 60


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


@pytest.fixture
def cryo(cryo_process):
    return cryo_process


def test_backup_and_restore_of_stdin(cryo, tmp_path):
    data = noise(3 * MIB)
    summary = cryo.summary("--stdin", "--name", "dump.sql", stdin=data)
    assert (summary["bytes"], summary["files"], summary["issues"]) == (len(data), 1, 0)
    assert cryo("cat", "latest")[0] == data
    assert cryo("cat", "latest:dump.sql")[0] == data
    assert cryo("restore", "latest", "-")[0] == data
    cryo("restore", "latest", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    assert cryo("ls", "latest")[0] == b"dump.sql\n"
    assert b"all is there" in cryo("verify", "latest", "--data")[0]
    assert cryo.summary("--stdin", "--name", "dump.sql", stdin=data)["same"]


def test_the_output_of_a_shell_line_or_of_a_command_with_arguments(cryo):
    cryo("backup", "--command", "echo one; echo $HOME | wc -l", "--name", "a")
    assert cryo("cat", "latest")[0].split() == [b"one", b"1"]
    cryo("backup", "--stdin-from-command", "--name", "b", "--", "printf", "%s|", "a b", "--json", "*")
    assert cryo("cat", "latest")[0] == b"a b|--json|*|"


def test_a_command_that_fails(cryo):
    for line in ("echo x; exit 3", "kill -9 $$"):
        _, err = cryo("backup", "--command", f"echo said >&2; {line}", "--name", "a", code=2)
        assert err.startswith("made a new store") or "said\n" in err
        assert "no recovery point is made" in err
    if shutil.which("bash"):
        cryo("backup", "--command", "false | cat", "--name", "a", code=2)
    assert cryo.points() == []
    assert b"no open jobs, no claims" in cryo("jobs")[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_stream_leaves_no_point_and_no_open_job(cryo, number):
    process = cryo.start("backup", "--stdin", "--name", "a", stdin=subprocess.PIPE)
    process.stdin.write(noise(10 * MIB))
    process.stdin.flush()
    process.send_signal(number)
    process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 130
    assert cryo.points() == []
    assert b"no open jobs, no claims" in cryo("jobs")[0]


@pytest.mark.parametrize("kind", ["stream", "disk"])
@pytest.mark.parametrize("is_link", [False, True], ids=["pipe", "link to a pipe"])
def test_a_pipe_without_a_reader_does_not_block_a_restore(cryo, tmp_path, kind, is_link):
    (tmp_path / "disk").write_bytes(noise(MIB))
    source = {"stream": ("--stdin", "--name", "a"), "disk": ("--device", tmp_path / "disk")}[kind]
    cryo("backup", *source, stdin=b"stream")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    process = cryo.start("restore", "latest", tmp_path / ("link" if is_link else "pipe"))
    wait_for_handler(process.pid, signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 130


def wait_for_handler(pid, number):
    """Wait until a process handles a signal."""

    def handles():
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(status["SigCgt"], 16) & 1 << (number - 1)

    until(handles, seconds_max=SECONDS_MAX)


def test_content_for_a_reader_that_closes_its_pipe_is_not_reported_as_written(cryo):
    cryo("backup", "--stdin", "--name", "a", stdin=noise(2 * MIB))
    for arguments in (("cat", "latest"), ("restore", "latest", "-")):
        process = cryo.start(*arguments)
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(SECONDS_MAX) == 1


def test_a_source_or_target_of_a_wrong_kind_is_refused_at_once(cryo, tmp_path):
    """It is not opened, because opening a FIFO would wait for a writer."""
    (tmp_path / "disk").write_bytes(noise(MIB))
    cryo("backup", "--device", tmp_path / "disk", "--resource", "disk")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for source in ("pipe", "to pipe"):
            _, err = cryo("backup", "--device", tmp_path / source, code=2)
            assert "a FIFO is not a disk; use --stdin to back up" in err
        for source in ("socket", ".", "/dev/null"):
            assert "is neither a block device nor a file" in cryo("backup", "--device", source, code=2)[1]
        assert "is a socket, which cannot be opened" in cryo("restore", "latest", tmp_path / "socket", code=2)[1]
        assert (tmp_path / "socket").is_socket()
    cryo("backup", tmp_path / "disk", "--resource", "tree")
    for target in ("pipe", "socket", "disk"):
        for point in ("latest", "latest:disk") if target != "disk" else ("latest",):
            _, err = cryo("restore", point, target, "--resource", "tree", code=2)
            assert "Not a directory" in err or "is no folder" in err or "is not a folder" in err
    (tmp_path / "folder").mkdir()
    cryo("restore", "latest", tmp_path / "folder", "--resource", "disk")
    assert (tmp_path / "folder" / "disk").read_bytes() == noise(MIB)


def test_a_killed_stream_leaves_no_point_and_its_chunks_are_not_sent_again(cryo):
    data = noise(40 * MIB)
    process = cryo.start("backup", "--stdin", "--name", "a", stdin=subprocess.PIPE)
    process.stdin.write(data[: 36 * MIB])
    process.stdin.flush()
    wait_for_bytes(cryo.folder / "store", 20 * MIB)
    process.kill()
    process.communicate()
    assert cryo.points() == []
    summary = cryo.summary("--stdin", "--name", "a", stdin=data)
    assert summary["sent_bytes"] < 30 * MIB
    assert cryo("cat", "latest")[0] == data
    assert len(cryo.points()) == 1
    assert b"all is there" in cryo("verify", "latest", "--data")[0]


def wait_for_bytes(folder, count):
    """Wait until the files in a folder have this many bytes."""

    def stored_bytes():
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    until(lambda: stored_bytes() >= count, seconds_max=SECONDS_MAX)


def test_backup_and_restore_of_a_disk_image(cryo, tmp_path):
    image = tmp_path / "disk.raw"
    image.write_bytes(noise(2 * MIB) + bytes(3 * MIB) + b"end")
    summary = cryo.summary("--device", image)
    assert summary["bytes"] == 5 * MIB + 3
    assert summary["sent_bytes"] < 3 * MIB + 4096
    assert cryo.summary("--device", image)["same"]
    assert cryo("cat", "latest:disk.raw")[0] == image.read_bytes()
    cryo("restore", "latest", tmp_path / "out.raw")
    assert (tmp_path / "out.raw").read_bytes() == image.read_bytes()
    assert b"1 left as they are" in cryo("restore", "latest", tmp_path / "out.raw")[0]
    assert b"all is there" in cryo("verify", "latest", "--data")[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to back up"),
        (("--stdin",), "a stream needs a name"),
        (("--stdin", "--command", "true", "--name", "a"), "exclude each other"),
        (("--stdin", "--name", "a", "path"), "without PATH"),
        (("--stdin-from-command", "--name", "a"), "needs a command"),
        (("--stdin", "--name", "a", "--exclude", "b"), "--exclude is only for files and folders"),
        (("--stdin", "--name", "a/b"), "not a valid file name"),
        (("--device", "missing"), "missing: No such file"),
        (("--name", "a", "."), "--name is for a stream or a disk"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(cryo, arguments, said):
    assert said in cryo("backup", *arguments, code=2)[1]


# --- damage -----------------------------------------------------------------------------------------------------------


def spoil_in_the_middle(cryo, digest):
    """Flip a bit of a chunk. No scrub has found the damage."""
    with closing(sqlite3.connect(cryo.folder / "store" / "catalog.sqlite")) as catalog:
        query = "SELECT name, pack_offset, sealed_length FROM chunk JOIN pack USING (pack_number) WHERE digest = ?"
        name, offset, length = catalog.execute(query, (digest,)).fetchone()
    (pack,) = (cryo.folder / "store" / "packs").rglob(f"{name}.pack")
    content = bytearray(pack.read_bytes())
    content[offset + length // 2] ^= 1
    pack.write_bytes(content)


def test_a_damaged_stream_is_an_issue_that_names_the_place(cryo, tmp_path):
    """Exit code 1 for every target, and no target has a half-written file."""
    data = noise(12 * MIB)
    cryo("backup", "--stdin", "--name", "dump.sql", stdin=data)
    with closing(sqlite3.connect(tmp_path / "store" / "catalog.sqlite")) as catalog:
        rows = catalog.execute("SELECT digest, length FROM chunk WHERE length > 100000").fetchall()
    chunks = {digest: length for digest, length in rows if length <= len(data)}
    sizes, place = [], 0
    while place < len(data):
        found = next(length for digest, length in rows if sha256(data[place : place + length]).digest() == digest)
        sizes.append((place, found))
        place += found
    place, length = sizes[-2]
    assert len(sizes) == len(chunks)
    spoil_in_the_middle(cryo, sha256(data[place : place + length]).digest())
    words = f"dump.sql: the file cannot be read from byte {place} on: stored data is damaged"
    out, err = cryo("cat", "latest", code=1)
    assert words in err
    assert data.startswith(out)
    out, err = cryo("restore", "latest", "-", code=1)
    assert words in err
    assert data.startswith(out)
    (tmp_path / "old").write_bytes(b"old")
    for target in ("out", "old"):
        _, err = cryo("restore", "latest", tmp_path / target, code=1)
        assert words in err
        assert "repeat" not in err
    assert (tmp_path / "old").read_bytes() == b"old"
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".cryo-restore-*"))
    _, err = cryo("verify", "latest", code=1)
    assert "dump.sql" in err, "the failed read has marked it"


def test_a_disk_with_a_damaged_block_is_restored_in_place_except_for_that_block(cryo, tmp_path):
    """It is not restored to a new file, because an incomplete disk must not look complete."""
    data = noise(24 * MIB)
    (tmp_path / "disk").write_bytes(data)
    cryo("backup", "--device", tmp_path / "disk", "--name", "disk")
    block = BLOCK_BYTES
    spoil_in_the_middle(cryo, sha256(data[2 * block : 3 * block]).digest())
    words = f"disk: {block} bytes from byte {2 * block} on cannot be read: stored data is damaged"
    _, err = cryo("restore", "latest", tmp_path / "new", code=1)
    assert words in err
    assert not (tmp_path / "new").exists()
    (tmp_path / "image").write_bytes(bytes(len(data)))
    _, err = cryo("restore", "latest", tmp_path / "image", code=1)
    assert words in err
    assert (tmp_path / "image").read_bytes() == data[: 2 * block] + bytes(block) + data[3 * block :]
    _, err = cryo("verify", "latest", code=1)
    assert f"block at byte {2 * block} is damaged" in err
