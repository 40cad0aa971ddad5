"""Self-test of a blob store: whether its service keeps promises that it could break silently.

Some services accept a condition on a write and ignore it, and so replace a blob that they should refuse to replace.
"""

from __future__ import annotations

from cryostore.chunks.blobs import BlobStore
from cryostore.core.errors import BlobExistsError, ConfigurationError

PREFIX = "trial/"


def check_blob_store(blobs: BlobStore, name: str) -> None:
    """Put, put again, read, list and delete one small blob. `name` must be new.

    Raises ConfigurationError if the store breaks a promise of BlobStore; StorageUnavailableError. A process that dies
    meanwhile leaves a blob of a few bytes under `PREFIX`, which has no meaning.
    """
    key = PREFIX + name
    blobs.put(key, b"first")
    try:
        if (broken := _broken_promise(blobs, key)) is not None:
            raise ConfigurationError(
                f"the service for blobs {broken}",
                hint="use one that supports conditional writes (If-None-Match) and consistent reads",
            )
    finally:
        blobs.delete(key)


def _broken_promise(blobs: BlobStore, key: str) -> str | None:
    try:
        blobs.put(key, b"second")
    except BlobExistsError:
        pass
    else:
        return "replaces a blob that it should leave alone"
    if blobs.get(key) != b"first" or blobs.get(key, 1, 3) != b"irs":
        return "gives other bytes than it was given"
    if blobs.stat(key) != len(b"first") or key not in blobs.list(key):
        return "does not show a blob that it has just taken"
    return None
