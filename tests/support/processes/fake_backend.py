"""A backend in memory, for tests of the server. It knows no jobs, no vaults and no checksums.

Some names have an effect: see `BEHAVIOURS`. Calls with an object name are recorded in the file `calls` of the data
directory, so that a test can see from another process whether anything got through.
"""

from __future__ import annotations

import threading
from pathlib import Path

from cryostore.core.digest import Payload
from cryostore.core.errors import (
    ConfigurationError,
    DamagedDataError,
    KeyUnavailableError,
    StorageFullError,
)
from cryostore.model import OPERATIONS
from cryostore.model.errors import DataAlreadyExistsException
from cryostore.wire.sigv4 import Credentials

CREDENTIALS = Credentials("AKIATEST000000000000", "fake-secret-that-must-not-be-logged")
TOKEN = "page-token-that-must-not-be-logged"
METADATA = "metadata-that-must-not-be-logged"


def _fail():
    raise RuntimeError("exploded as asked")


def _raise(error):
    raise error


BEHAVIOURS = {
    "explode": _fail,
    "full": lambda: _raise(StorageFullError("no space left on /secret/path")),
    "no-key": lambda: _raise(KeyUnavailableError("key 7 is missing")),
    "damaged": lambda: _raise(DamagedDataError("pack 3 is damaged")),
    "exists": lambda: _raise(DataAlreadyExistsException("there is one", checksum="c", checksum_algorithm="SUMMARY")),
}


class Access:
    """One access key."""

    def secret(self, access_key_id):
        return CREDENTIALS.secret_access_key if access_key_id == CREDENTIALS.access_key_id else None

    known = secret

    def caller(self, access_key_id):
        return access_key_id


class FakeBackend:
    """Objects by name; a chunk token is the name of an object."""

    def __init__(self, data_dir: Path):
        self.access = Access()
        self.data_dir = data_dir
        self.calls = []
        self.objects = {}
        self.closed = False
        self.maintained = threading.Event()
        self.slow_began = threading.Event()
        self.slow_may_end = threading.Event()

    def call(self, operation, caller):
        declaration = operation.declaration
        self.calls.append(operation)
        name = getattr(operation, "object_name", "")
        if name:
            with (self.data_dir / "calls").open("a") as calls:
                calls.write(f"{declaration.name} {caller} {name}\n")
        if name in BEHAVIOURS:
            BEHAVIOURS[name]()
        if name == "slow":
            self._wait()
        return getattr(self, f"_{declaration.name}", self._any)(operation)

    takes_writes = True
    clock = None

    def publish(self, meter):
        pass

    def recover(self):
        pass

    def report(self):
        """Report nothing."""

    def maintain(self):
        self.maintained.set()
        (self.data_dir / "maintained").touch()

    def close(self):
        self.closed = True
        (self.data_dir / "closed").touch()

    def _wait(self):
        """Wait until the test in this process, or the file `go` in another one, allows it to continue."""
        self.slow_began.set()
        (self.data_dir / "slow").touch()
        while not self.slow_may_end.wait(0.01) and not (self.data_dir / "go").exists():
            pass

    def _any(self, operation):
        return operation.declaration.output()

    def _StartObject(self, operation):  # noqa: N802 - the operation's own name
        return operation.declaration.output(upload_id="upload-1")

    def _PutObject(self, operation):  # noqa: N802
        payload = operation.inline_chunk or Payload()
        self.objects[operation.object_name] = bytes(payload.data)
        return operation.declaration.output(
            inline_chunk_checksum=payload.sha256.hex(),
            inline_chunk_checksum_algorithm="SHA256",
            object_checksum="0",
            object_checksum_algorithm="SUMMARY",
        )

    def _PutChunk(self, operation):  # noqa: N802
        return operation.declaration.output(
            chunk_checksum=operation.data.sha256.hex(), chunk_checksum_algorithm="SHA256"
        )

    def _ListObjects(self, operation):  # noqa: N802
        return operation.declaration.output(object_list=[])

    def _GetChunk(self, operation):  # noqa: N802
        data = self.objects[operation.chunk_token]
        return operation.declaration.output(
            data=Payload(data), length=len(data), checksum="c", checksum_algorithm="SHA256"
        )


def open_fake_backend(configuration, **_):
    """Open the fake on an existing directory."""
    data_dir = configuration.data_dir
    if not data_dir.is_dir():
        raise ConfigurationError(f"{data_dir} is no directory", hint="make one")
    return FakeBackend(data_dir)


assert "GetChunk" in OPERATIONS
