"""NBD server: a client written from the protocol's text, arbitrary bytes, and the client `nbdcopy`."""

from __future__ import annotations

import errno
import os
import random
import shutil
import socket
import struct
import subprocess
import threading
from contextlib import contextmanager

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cryostore.agent.mount.nbd_server import READ_BYTES_MAX, Export, listening_socket, serve_client, serve_clients
from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.core.limits import MIB

DATA = random.Random(5).randbytes(3 * MIB + 7)
OPTION = 0x49484156454F5054
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED = 1, 2, 3, 5, 6, 7, 8


class Content:
    """The bytes as a file. A read at offset 13 fails, as for damaged data."""

    size = len(DATA)

    def read(self, offset, length):
        if offset == 13:
            raise CryostoreError("damaged")
        return DATA[offset : offset + length]


EXPORT = Export(b"disk.raw", Content())


class Client:
    """Sends messages and reads the replies."""

    def __init__(self, connection):
        self.connection = connection

    def send(self, form, *values, data=b""):
        self.connection.sendall(struct.pack(form, *values) + data)

    def receive(self, form):
        data = self.bytes(struct.calcsize(form))
        return struct.unpack(form, data)

    def bytes(self, length):
        data = b""
        while len(data) < length:
            part = self.connection.recv(length - len(data))
            assert part, "the server disconnected"
            data += part
        return data

    def greet(self, flags=3):
        assert self.receive(">8s8sH") == (b"NBDMAGIC", b"IHAVEOPT", 3)
        self.send(">I", flags)

    def option(self, number, data=b""):
        """Send an option; return its replies, up to the last."""
        self.send(">QII", OPTION, number, len(data), data=data)
        replies = []
        while not replies or replies[-1][0] in (2, 3):
            magic, option, kind, length = self.receive(">QIII")
            assert (magic, option) == (0x3E889045565A9, number)
            replies.append((kind, self.bytes(length)))
        return replies

    def go(self, name=b"disk.raw"):
        return self.option(GO, struct.pack(">I", len(name)) + name + struct.pack(">H", 0))

    def request(self, kind, offset, length, data=b"", cookie=7):
        self.send(">IHHQQI", 0x25609513, 0, kind, cookie, offset, length, data=data)
        magic, error, echoed = self.receive(">IIQ")
        assert (magic, echoed) == (0x67446698, cookie)
        return error

    def read(self, offset, length):
        assert self.request(0, offset, length) == 0
        return self.bytes(length)

    def is_disconnected(self):
        try:
            return self.connection.recv(1) == b""
        except ConnectionResetError:
            return True


@contextmanager
def connected(export=EXPORT):
    """A client. A thread serves it and must end with it."""
    ours, theirs = socket.socketpair()

    def run():
        with theirs:
            serve_client(theirs, export)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with ours:
            ours.settimeout(30)
            yield Client(ours)
    finally:
        thread.join(30)
        assert not thread.is_alive()


def test_reads_at_any_offset():
    with connected() as client:
        client.greet()
        replies = client.go()
        assert [kind for kind, _ in replies] == [3, 3, 1]
        assert struct.unpack(">HQH", replies[0][1]) == (0, len(DATA), 0b1_0000_0011)
        chance = random.Random(1)
        for _ in range(50):
            offset = chance.randrange(len(DATA))
            length = chance.randrange(min(len(DATA) - offset, MIB))
            assert client.read(offset, length) == DATA[offset : offset + length]


def test_the_option_export_name_chooses_an_export():
    for flags, zeroes in ((3, 0), (1, 124)):
        with connected() as client:
            client.greet(flags)
            client.send(">QII", OPTION, EXPORT_NAME, 0)
            assert client.receive(">QH")[0] == len(DATA)
            assert client.bytes(zeroes) == bytes(zeroes)
            assert client.read(0, 10) == DATA[:10]
            client.send(">IHHQQI", 0x25609513, 0, 2, 0, 0, 0)
            assert client.is_disconnected()


def test_other_options_of_the_handshake():
    with connected() as client:
        client.greet()
        assert client.option(LIST) == [(2, b"\0\0\0\x08disk.raw"), (1, b"")]
        assert client.option(LIST, b"x") == [(1 << 31 | 3, b"")]
        assert client.option(STARTTLS) == client.option(STRUCTURED) == client.option(77) == [(1 << 31 | 1, b"")]
        assert client.go(b"other") == [(1 << 31 | 6, b"")]
        assert client.option(GO, b"\xff\xff\xff\xff") == [(1 << 31 | 3, b"")]
        assert [kind for kind, _ in client.option(INFO, struct.pack(">IHH", 0, 1, 3))] == [3, 3, 1]
        assert client.option(ABORT) == [(1, b"")]
        assert client.is_disconnected()


def test_writes_and_reads_beyond_the_end_are_refused():
    with connected() as client:
        client.greet()
        client.go()
        assert client.request(1, 0, 5, b"write") == errno.EPERM
        assert client.request(4, 0, 5) == errno.EPERM
        assert client.request(3, 0, 0) == 0
        assert client.request(0, len(DATA) - 1, 2) == errno.EINVAL
        assert client.request(0, 1 << 63, 2) == errno.EINVAL
        assert client.request(0, 0, READ_BYTES_MAX + 1) == errno.EINVAL
        assert client.request(0, 13, 2) == errno.EIO
        assert client.read(len(DATA) - 1, 1) == DATA[-1:]
        client.send(">IHHQQI", 0x25609513, 0, 1, 0, 0, 0xFFFF_FFFF)
        assert client.is_disconnected()


def test_a_read_of_too_many_bytes_is_refused():
    class Huge:
        size = 1 << 40

        def read(self, offset, length):
            return bytes(length)

    with connected(Export(b"", Huge())) as client:
        client.greet()
        client.go(b"")
        assert client.request(0, 0, READ_BYTES_MAX + 1) == errno.EINVAL
        assert client.read(1 << 39, READ_BYTES_MAX) == bytes(READ_BYTES_MAX)


@settings(max_examples=60, deadline=None)
@given(messages=st.lists(st.binary(max_size=40), max_size=5), is_greeted=st.booleans(), is_started=st.booleans())
@example(messages=[struct.pack(">QII", OPTION, GO, 0xFFFF_FFFF)], is_greeted=True, is_started=False)
@example(messages=[struct.pack(">QII", OPTION, ABORT, 0)] * 70, is_greeted=True, is_started=False)
def test_arbitrary_bytes_neither_hang_nor_crash_the_server(messages, is_greeted, is_started):
    with connected() as client:
        client.bytes(18)
        try:
            if is_greeted:
                client.send(">I", 3)
            if is_greeted and is_started:
                client.go()
            for part in messages:
                client.connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server disconnected in between


def test_a_socket_for_this_user_alone_serves_clients_and_is_removed(tmp_path):
    path = str(tmp_path / "nbd.sock")
    with listening_socket(path) as server:
        assert os.stat(path).st_mode & 0o777 == 0o600
        with pytest.raises(ConfigurationError, match="already listens on"), listening_socket(path):
            pass
        thread = threading.Thread(target=serve_clients, args=(server, EXPORT))
        thread.start()
        if shutil.which("nbdcopy"):
            subprocess.run(["nbdcopy", f"nbd+unix:///disk.raw?socket={path}", tmp_path / "copy"], check=True)
            assert (tmp_path / "copy").read_bytes() == DATA
        server.shutdown(socket.SHUT_RDWR)
        thread.join(30)
        assert not thread.is_alive()
    assert not os.path.exists(path)


def test_a_stale_socket_is_replaced_and_any_other_entry_is_refused(tmp_path):
    path = str(tmp_path / "nbd.sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    with listening_socket(path):
        pass
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(ConfigurationError, match="not a socket"), listening_socket(str(tmp_path / "file")):
        pass
    assert (tmp_path / "file").read_bytes() == b"mine"
