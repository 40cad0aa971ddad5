"""`cryo serve-nbd`: a socket that serves a disk until a signal ends the run."""

from __future__ import annotations

import signal
import socket

COVERS = ("cli/agent/mount.py",)

GREETING = b"NBDMAGICIHAVEOPT"
SECONDS_MAX = 60


def test_a_disk_is_served_until_a_signal(cryo_process, tmp_path):
    place = tmp_path / "socket"
    (tmp_path / "disk").write_bytes(b"disk" * 1024)
    cryo_process("backup", "--device", tmp_path / "disk")
    with cryo_process.start("serve-nbd", "latest", "--socket", place) as process:
        assert process.stderr.readline().decode() == f"serving 4096 bytes on {place}: Ctrl-C ends it\n"
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(SECONDS_MAX)
            client.connect(str(place))
            assert client.recv(len(GREETING), socket.MSG_WAITALL) == GREETING
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=SECONDS_MAX) == (b"", b"")
    assert process.returncode == 0
    assert not place.exists()


def test_nothing_is_served_without_a_point(cryo_process, tmp_path):
    (tmp_path / "file").write_bytes(b"file")
    cryo_process("backup", tmp_path / "file")
    _, err = cryo_process("serve-nbd", "latest:missing", "--socket", tmp_path / "socket", code=2)
    assert "does not contain 'missing'" in err
    assert not (tmp_path / "socket").exists()
