"""NBD server on a Unix socket, read by a client that others wrote."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import threading

import pytest

from cryostore.agent.mount.nbd_connection import Export
from cryostore.agent.mount.nbd_server import listening_socket, serve_clients
from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import MIB

DATA = random.Random(5).randbytes(3 * MIB + 7)


class Disk:
    """A file of these bytes."""

    size = len(DATA)

    def read(self, offset, length):
        return DATA[offset : offset + length]


EXPORT = Export(b"disk.raw", Disk())


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
