"""A Unix socket on which some clients at a time read one export."""

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
    """A socket at a path that only this user may connect to; it is removed at the end.

    One that nobody listens on any more is replaced. Raises ConfigurationError for whatever else stands there.
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
        raise ConfigurationError(f"{path!a} exists and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise ConfigurationError(f"somebody listens on {path!a} already")


def serve_clients(server: socket.socket, export: Export) -> None:
    """Serve clients, each in a thread, until the socket is shut down. More than some at a time have to wait."""
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
