"""NBD server on a Unix socket: several clients read one export at the same time."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cryostore.agent.mount.nbd_connection import Export, serve_client
from cryostore.core.errors import ConfigurationError

CLIENTS_MAX = 16


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
