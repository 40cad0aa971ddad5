"""NBD server on a Unix socket: clients read one file of a recovery point as a read-only network block device.

Fixed newstyle handshake and simple replies, as specified in
https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md. Whatever a client sends, the bounds below limit what
is read and held.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.core.limits import KIB, MIB

GREETING = struct.Struct(">8s8sH")
OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")
REQUEST = struct.Struct(">IHHQQI")
REPLY = struct.Struct(">IIQ")
EXPORT = struct.Struct(">QH")
INFO_EXPORT = struct.Struct(">HQH")
INFO_BLOCK_SIZE = struct.Struct(">HIII")
MAGIC, OPTION_MAGIC = b"NBDMAGIC", b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x0003_E889_0455_65A9
REQUEST_MAGIC, REPLY_MAGIC = 0x2560_9513, 0x6744_6698
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
FLAGS = 1 | 2 | 1 << 8
"""The export has flags, is read-only, and is the same on every connection."""
EXPORT_NAME, ABORT, LIST, INFO, GO = 1, 2, 3, 6, 7
ACK, SERVER, IS_INFO = 1, 2, 3
UNSUPPORTED, INVALID, UNKNOWN = (1 << 31 | number for number in (1, 3, 6))
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
OPTION_BYTES_MAX = 8 * KIB
READ_BYTES_MAX = 32 * MIB
WRITE_BYTES_MAX = 32 * MIB
OPTIONS_MAX = 64
CLIENTS_MAX = 16


class ExportedFile(Protocol):
    """The file that is exported."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from an offset on, fewer at the end."""


@dataclass(frozen=True, slots=True)
class Export:
    """A file under a name. Clients that ask for the empty name get it, too."""

    name: bytes
    file: ExportedFile


class _ConnectionEndedError(Exception):
    """The client is gone or violates the protocol: the connection ends."""


@contextmanager
def listening_socket(path: str) -> Iterator[socket.socket]:
    """Listen on a socket at a path that only this user can connect to; remove it at the end of the context.

    A socket that no process listens on is replaced. Raises ConfigurationError for any other existing entry.
    """
    _make_room(path)
    server = socket.socket(socket.AF_UNIX)
    with server:
        before = os.umask(0o177)
        try:
            server.bind(path)
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {path!a}: {error.strerror or error}") from error
        finally:
            os.umask(before)
        server.listen(CLIENTS_MAX)
        try:
            yield server
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)


def _make_room(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError(f"{path!a} exists and is not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise ConfigurationError(f"another process already listens on {path!a}")


def serve_clients(server: socket.socket, export: Export) -> None:
    """Serve each client in a thread until the socket is shut down. Clients beyond CLIENTS_MAX wait."""
    room = threading.BoundedSemaphore(CLIENTS_MAX)

    def run(connection: socket.socket) -> None:
        try:
            with connection:
                serve_client(connection, export)
        finally:
            room.release()

    while True:
        room.acquire()
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=run, args=(connection,), name="nbd", daemon=True).start()


def serve_client(connection: socket.socket, export: Export) -> None:
    """Serve one client until it disconnects. Raises nothing for what a client does."""
    try:
        client = _ClientConnection(connection, export)
        if client.negotiate():
            client.transmit()
    except (_ConnectionEndedError, OSError):
        return


class _ClientConnection:
    """One connection: the handshake, then requests."""

    def __init__(self, connection: socket.socket, export: Export) -> None:
        self._connection = connection
        self._export = export
        self._no_zeroes = False

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            if not (part := self._connection.recv(min(length - len(data), 64 * KIB))):
                raise _ConnectionEndedError
            data += part
        return bytes(data)

    # --- the handshake ------------------------------------------------------------------------------------------------

    def negotiate(self) -> bool:
        """Do the handshake; return whether the client starts to read now."""
        self._connection.sendall(GREETING.pack(MAGIC, OPTION_MAGIC, FIXED_NEWSTYLE | NO_ZEROES))
        flags = int.from_bytes(self._receive(4), "big")
        if not flags & FIXED_NEWSTYLE or flags & ~(FIXED_NEWSTYLE | NO_ZEROES):
            raise _ConnectionEndedError
        self._no_zeroes = bool(flags & NO_ZEROES)
        for _ in range(OPTIONS_MAX):
            magic, option, length = OPTION.unpack(self._receive(OPTION.size))
            if magic != OPTION_MAGIC or length > OPTION_BYTES_MAX:
                raise _ConnectionEndedError
            data = self._receive(length)
            if option == EXPORT_NAME:
                return self._export_name(data)
            if option == ABORT:
                self._reply(option, ACK)
                return False
            if self._answer(option, data):
                return True
        raise _ConnectionEndedError

    def _export_name(self, name: bytes) -> bool:
        """Answer the old way to choose an export, which can refuse a name only by disconnecting."""
        if not self._names_export(name):
            raise _ConnectionEndedError
        zeroes = b"" if self._no_zeroes else bytes(124)
        self._connection.sendall(EXPORT.pack(self._export.file.size, FLAGS) + zeroes)
        return True

    def _answer(self, option: int, data: bytes) -> bool:
        """Answer an option; return whether it ends the handshake."""
        if option == LIST and not data:
            self._reply(option, SERVER, len(self._export.name).to_bytes(4, "big") + self._export.name)
            self._reply(option, ACK)
        elif option == LIST:
            self._reply(option, INVALID)
        elif option in (INFO, GO):
            return self._info(option, data)
        else:
            self._reply(option, UNSUPPORTED)
        return False

    def _info(self, option: int, data: bytes) -> bool:
        length = int.from_bytes(data[:4], "big")
        asked = int.from_bytes(data[4 + length : 6 + length], "big")
        if len(data) != 6 + length + 2 * asked:
            self._reply(option, INVALID)
            return False
        if not self._names_export(data[4 : 4 + length]):
            self._reply(option, UNKNOWN)
            return False
        self._reply(option, IS_INFO, INFO_EXPORT.pack(0, self._export.file.size, FLAGS))
        self._reply(option, IS_INFO, INFO_BLOCK_SIZE.pack(3, 1, 64 * KIB, READ_BYTES_MAX))
        self._reply(option, ACK)
        return option == GO

    def _names_export(self, name: bytes) -> bool:
        return name in (b"", self._export.name)

    def _reply(self, option: int, kind: int, data: bytes = b"") -> None:
        self._connection.sendall(OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data)

    # --- reading ------------------------------------------------------------------------------------------------------

    def transmit(self) -> None:
        """Answer requests until the client disconnects."""
        while True:
            magic, _, kind, cookie, offset, length = REQUEST.unpack(self._receive(REQUEST.size))
            if magic != REQUEST_MAGIC or kind == DISCONNECT:
                return
            if kind == WRITE:
                self._skip(length)
            data, number = b"", 0
            if kind == READ:
                data, number = self._read(offset, length)
            elif kind != FLUSH:
                number = errno.EPERM
            self._connection.sendall(REPLY.pack(REPLY_MAGIC, number, cookie))
            if data:
                self._connection.sendall(data)

    def _read(self, offset: int, length: int) -> tuple[bytes, int]:
        """Return the bytes, or the error number: the protocol has no partial answers."""
        if length > READ_BYTES_MAX or offset + length > self._export.file.size:
            return b"", errno.EINVAL
        try:
            data = self._export.file.read(offset, length)
        except CryostoreError:
            return b"", errno.EIO
        return (data, 0) if len(data) == length else (b"", errno.EIO)

    def _skip(self, length: int) -> None:
        if length > WRITE_BYTES_MAX:
            raise _ConnectionEndedError
        while length:
            length -= len(self._receive(min(length, 64 * KIB)))
