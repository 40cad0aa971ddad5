"""The head of a sealed object: what stands beside its chunks, sealed with all the rest.

Table: docs/reference/archive.md.

The head of the catalog is where trust in an archive begins: it has the header, which has the marks of the heads of all
content objects; a head has the identities of its table's chunks, and a table those of the content's. So nothing of
another time, place or archive passes for a part of this one.
"""

from __future__ import annotations

import msgspec

from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.keys.archive_key import ArchiveKey

FORMAT = 1
MARK_BYTES = 16


class Recipient(msgspec.Struct, frozen=True):
    """Whoever may open the archive: a public key, and what people call it."""

    public: bytes
    name: str


class SealedHead(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a sealed object. `header` and `recipients` are the catalog's alone."""

    format: int = FORMAT
    resource: str
    """What the archive is a backup of, so that none passes for another's."""
    table: list[bytes]
    """The identities of the chunks of the object's table, which are its last ones."""
    header: bytes = b""
    recipients: list[Recipient] = []

    def encode(self) -> bytes:
        """The head as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> SealedHead:
        """Read a head that was sealed. Raises ArchiveDamagedError."""
        try:
            head = msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError:
            raise ArchiveDamagedError("the head of a sealed object is damaged") from None
        if head.format != FORMAT:
            raise ArchiveDamagedError(
                f"a sealed object has format {head.format}, unknown to this version",
                hint="read it with the version that wrote it, or a later one",
            )
        return head


def mark_of(key: ArchiveKey, head: bytes) -> bytes:
    """By what the header knows the head of a content object again."""
    return key.piece_id(head)[:MARK_BYTES]
