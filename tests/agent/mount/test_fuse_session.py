"""FUSE session without a kernel: protocol messages over a socket, the table of nodes, and mounts that are refused."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from contextlib import closing, contextmanager

import pytest

from cryostore.agent.archive.recovery_points import find_point
from cryostore.agent.backup.job import open_job
from cryostore.agent.mount import fuse_session
from cryostore.agent.mount.file_system import NodeLocation, NodeTable, RecoveryPointFileSystem
from cryostore.agent.mount.fuse_messages import Opcode
from cryostore.agent.mount.fuse_session import ROOT, THREADS, FuseSession, mount
from cryostore.agent.small_object import store_small
from cryostore.core.errors import ConfigurationError
from support.archives.agent import write

HEADER = struct.Struct("<IIQQIIIHH")


class Kernel:
    """Sends requests as the kernel does."""

    def __init__(self, connection):
        self.connection = connection
        self.unique = 0

    def send(self, opcode, node, data=b""):
        self.unique += 2
        self.connection.send(HEADER.pack(HEADER.size + len(data), opcode, self.unique, node, 0, 0, 0, 0, 0) + data)

    def ask(self, opcode, node=1, data=b""):
        """Send a request and return the body of the answer. Raises OSError with the number of an error."""
        self.send(opcode, node, data)
        answer = self.connection.recv(1 << 20)
        length, error, unique = struct.unpack_from("<IiQ", answer)
        assert (length, unique) == (len(answer), self.unique)
        if error:
            assert len(answer) == 16
            raise OSError(-error, os.strerror(-error))
        return answer[16:]

    def look_up(self, *names, node=1):
        """Look up the names of a path; return node number and mode."""
        mode = 0
        for name in names:
            answer = self.ask(Opcode.LOOKUP, node, name + b"\0")
            node, mode = struct.unpack_from("<Q", answer)[0], struct.unpack_from("<I", answer, 40 + 60)[0]
        return node, mode

    def names(self, node, opcode=Opcode.READDIR, size=4096):
        """The names in a directory, read in answers of at most `size` bytes."""
        (handle,) = struct.unpack_from("<Q", self.ask(Opcode.OPENDIR, node, bytes(8)))
        found, position = [], 0
        while data := self.ask(opcode, node, struct.pack("<QQI20x", handle, position, size)):
            assert len(data) <= size
            while data:
                data = data[128 if opcode == Opcode.READDIRPLUS else 0 :]
                _, position, length, _ = struct.unpack_from("<QQII", data)
                found.append(data[24 : 24 + length])
                data = data[24 + (length + 7) // 8 * 8 :]
        self.ask(Opcode.RELEASEDIR, node, struct.pack("<QIIQ", handle, 0, 0, 0))
        return found


@contextmanager
def mounted(call, point=None, resource=None):
    """Yield a kernel connected to a session, and the list of failures that the session reports."""
    failures = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(RecoveryPointFileSystem(call, point, None, resource)) as files:
        threads = FuseSession(theirs.fileno(), files, failures.append).start(lambda: None)
        assert len(threads) == THREADS
        try:
            ours.settimeout(30)
            kernel = Kernel(ours)
            assert (
                struct.unpack_from("<IIII", kernel.ask(Opcode.INIT, 0, struct.pack("<IIII", 7, 40, 1 << 20, 0)))[0] == 7
            )
            yield kernel, failures
        finally:
            ours.close()
            for thread in threads:
                thread.join(30)
            theirs.close()


@pytest.fixture
def kernel(local_runs, tmp_path):
    tree = {"file": b"content", "many": {f"{n:04}": b"" for n in range(300)}, b"\xff": {}}
    write(tmp_path / "source", tree)
    os.symlink(b"\xfe", tmp_path / "source" / "link")
    local_runs.backup(tmp_path / "source")
    point = find_point(local_runs.call, "latest", resource=local_runs.resource)
    with mounted(local_runs.call, point) as (kernel, failures):
        yield kernel
        assert failures == []


def test_look_ups_and_reads(kernel):
    node, mode = kernel.look_up(b"file")
    assert stat.S_ISREG(mode)
    (handle,) = struct.unpack_from("<Q", kernel.ask(Opcode.OPEN, node, struct.pack("<II", os.O_RDONLY, 0)))
    assert kernel.ask(Opcode.READ, node, struct.pack("<QQI20x", handle, 2, 3)) == b"nte"
    assert kernel.ask(Opcode.READ, node, struct.pack("<QQI20x", handle, 7, 3)) == b""
    assert struct.unpack_from("<Q", kernel.ask(Opcode.LSEEK, node, struct.pack("<QQII", handle, 0, 4, 0))) == (7,)
    assert kernel.ask(Opcode.READLINK, kernel.look_up(b"link")[0]) == b"\xfe"
    assert stat.S_ISDIR(kernel.look_up(b"\xff")[1])
    with pytest.raises(OSError, match="No such file"):
        kernel.look_up(b"none")
    with pytest.raises(OSError, match="No such file"):
        kernel.look_up(b"many", b"..")


@pytest.mark.parametrize("opcode", [Opcode.READDIR, Opcode.READDIRPLUS])
@pytest.mark.parametrize("size", [200, 4096, 100_000])
def test_directories_are_listed_in_small_and_large_answers(kernel, opcode, size):
    assert kernel.names(1, opcode, size) == [b".", b"..", b"file", b"link", b"many", b"\xff"]
    node, _ = kernel.look_up(b"many")
    assert kernel.names(node, opcode, size) == [b".", b"..", *(b"%04d" % n for n in range(300))]


def test_writes_and_unknown_requests_are_refused(kernel):
    node, _ = kernel.look_up(b"file")
    with pytest.raises(OSError, match="Read-only"):
        kernel.ask(Opcode.OPEN, node, struct.pack("<II", os.O_WRONLY, 0))
    for opcode in (4, 9, 10, 11, 12, 16):
        with pytest.raises(OSError, match="Read-only"):
            kernel.ask(opcode, node, bytes(64))
    for opcode in (36, 99, 4096):
        with pytest.raises(OSError, match="not implemented"):
            kernel.ask(opcode, node, bytes(64))
    with pytest.raises(OSError, match="No such file"):
        kernel.ask(Opcode.GETATTR, 12345, bytes(16))
    with pytest.raises(OSError, match="No data"):
        kernel.ask(Opcode.GETXATTR, node, struct.pack("<II", 0, 0) + b"user.x\0")


def test_forgotten_nodes_are_gone(kernel):
    node, _ = kernel.look_up(b"file")
    assert kernel.look_up(b"file")[0] == node
    kernel.send(Opcode.FORGET, node, struct.pack("<Q", 1))
    assert kernel.ask(Opcode.GETATTR, node, bytes(16))
    kernel.send(Opcode.BATCH_FORGET, 0, struct.pack("<IIQQ", 1, 0, node, 1))
    assert any(is_gone(kernel, node) for _ in range(1000))  # another thread may answer before the one that forgets


def is_gone(kernel, node):
    try:
        kernel.ask(Opcode.GETATTR, node, bytes(16))
    except FileNotFoundError:
        return True
    return False


def test_a_recovery_point_without_an_archive_is_listed_but_not_readable(local_runs, tmp_path):
    job = open_job(local_runs.call, "Default", local_runs.resource, {})
    job.commit({"object": store_small(local_runs.call, job.job_id, "object", b"data")}, {}, 0)
    with mounted(local_runs.call, resource=local_runs.resource) as (kernel, failures):
        folder, _ = kernel.look_up(b"resources", local_runs.resource.encode())
        name = next(name for name in kernel.names(folder) if name.startswith(b"2"))
        node, mode = kernel.look_up(name, node=folder)
        assert mode == stat.S_IFDIR
        with pytest.raises(OSError) as raised:
            kernel.names(node)
        assert raised.value.errno == errno.EIO
        assert failures == ["the archive has no object catalog"]


def test_nodes_are_dropped_when_the_kernel_forgets_them():
    nodes = NodeTable(NodeLocation("", b""))
    number = nodes.look_up(NodeLocation("a", b"x"))
    assert nodes.look_up(NodeLocation("a", b"x")) == number
    assert nodes.location(number) == NodeLocation("a", b"x")
    nodes.forget(number, 1)
    assert nodes.location(number) == NodeLocation("a", b"x")
    nodes.forget(number, 1)
    with pytest.raises(FileNotFoundError):
        nodes.location(number)
    nodes.forget(number, 1)
    nodes.forget(ROOT, 100)
    assert nodes.location(ROOT) == NodeLocation("", b"")
    assert nodes.look_up(NodeLocation("a", b"x")) != number
    assert len(nodes) == 2


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot mount on .*No such file"):
        mount(str(tmp_path / "missing"), allow_other=False)


def test_a_folder_with_content_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="is not empty") as failure:
        mount(str(tmp_path), allow_other=False)
    assert "hide its content" in failure.value.hint


def test_a_machine_without_fuse_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(fuse_session, "DEVICE", str(tmp_path / "fuse"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="there is no"):
        mount(str(tmp_path / "folder"), allow_other=False)


def test_other_users_than_root_need_fusermount(tmp_path, monkeypatch):
    monkeypatch.setattr(fuse_session.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(fuse_session, "DEVICE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="there is no fusermount3") as failure:
        mount(str(tmp_path / "folder"), allow_other=False)
    assert "fuse3" in failure.value.hint
