"""What a machine that only writes remembers of its last run, so that the next one need not read and send all again.

Keyed digests, stat data, and what the store calls the chunks: nothing here opens an archive, and no name or content of
a file stands here. Who has this file can tell whether a file that they know was backed up, by path or by content.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from hashlib import sha256

import msgspec

from cryostore.agent.encryption.cipher import SECRET_BYTES, random_bytes
from cryostore.agent.header import ContentObject
from cryostore.core.errors import StorageUnavailableError

FORMAT = 1
CHUNK = struct.Struct("<32s32sIII")
"""identity, stored digest, stored bytes, number of the key, number of the object (0: the catalog)"""


class RunMemory(msgspec.Struct, kw_only=True):
    """The memory of the last run. `entries` and `chunks` are packed; tables: docs/reference/archive.md."""

    format: int = FORMAT
    identity: bytes
    """By what pieces and paths are known again. No secret of a chunk is derived from it."""
    point: str = ""
    """The recovery point that was made; of any other, only the chunks are known."""
    objects: list[ContentObject] = []
    keys: list[bytes] = []
    """Ids of the archive keys of the runs whose chunks are still used."""
    writers: dict[int, int] = {}
    """Number of the key, by the number of the object that it sealed the table of."""
    chunks: bytes = b""
    entries: bytes = b""
    holes: dict[bytes, bytes] = {}

    @classmethod
    def fresh(cls) -> RunMemory:
        """That of a machine that has not written yet."""
        return cls(identity=random_bytes(SECRET_BYTES))


def memory_path(folder: str, vault: str, resource: str) -> str:
    """Where the memory of a resource lies."""
    name = sha256(vault.encode() + b"\0" + resource.encode()).hexdigest()
    return os.path.join(folder, f"{name}.memory")


def load(path: str) -> RunMemory:
    """The memory in a file; a fresh one if it is missing, damaged or of a later format: then all is read again."""
    with suppress(OSError, msgspec.DecodeError, ValueError):
        with open(path, "rb") as file:
            memory = msgspec.msgpack.decode(file.read(), type=RunMemory)
        if memory.format == FORMAT and len(memory.identity) == SECRET_BYTES and len(memory.chunks) % CHUNK.size == 0:
            return memory
    return RunMemory.fresh()


def save(path: str, memory: RunMemory) -> None:
    """Put a memory in the place of the one before. Raises StorageUnavailableError; then that one is still there."""
    staged = f"{path}.new"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            os.unlink(staged)
        fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            file.write(msgspec.msgpack.encode(memory))
            file.flush()
            os.fsync(fd)
        os.rename(staged, path)
    except OSError as error:
        raise StorageUnavailableError(
            f"what the next run needs to know cannot be written: {error.strerror}",
            hint="the next run reads everything again",
        ) from error
