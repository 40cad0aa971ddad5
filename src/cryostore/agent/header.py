"""The header of an archive: what stands beside its catalog, as JSON. Table: docs/reference/archive.md.

It holds no time and no id, so that the header of an unchanged tree is unchanged, too.
"""

from __future__ import annotations

import msgspec

from cryostore.agent.errors import ArchiveDamagedError

FORMAT = 1
CATALOG = "catalog"
CONTENT_PREFIX = "content-"
FILESET = "fileset"
STREAM = "stream"
DISK = "disk"
KINDS = (FILESET, STREAM, DISK)
"""A file tree; one file that was a stream; one file that is the image of a disk, in blocks."""


def content_name(number: int) -> str:
    """The name of a content object."""
    return f"{CONTENT_PREFIX}{number:08d}"


class ContentObject(msgspec.Struct, frozen=True, omit_defaults=True):
    """A content object, the bytes in it, and how many of them the tree's files add up to."""

    number: int
    content_bytes: int
    live_bytes: int
    mark: bytes = b""
    """Of a sealed archive alone: by what the head of the object is known again."""


class DiskLayout(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a disk is cut: into segments, an object each, and those into blocks, a chunk each. A block of zeros has none.

    `unread` are offset and length of what could not be read and is zeros for that reason: the first of them.
    """

    disk_bytes: int
    block_bytes: int
    segment_bytes: int
    unread: list[tuple[int, int]]
    segments: list[int] = []
    """The numbers of the segments that have an object: one of them that is missing is lost, and not zeros."""
    marks: dict[str, bytes] = {}
    """Of a sealed archive alone: those of the heads of its segments, by their names."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader must know before the catalog. Names and paths are bytes, written in base64."""

    format: int = FORMAT
    kind: str = FILESET
    root: bytes
    only: list[bytes] | None = None
    """The paths below the root that the tree was made of; all of it, if absent."""
    entries: int
    files: int
    file_bytes: int
    objects: list[ContentObject]
    users: dict[int, str]
    groups: dict[int, str]
    disk: DiskLayout | msgspec.UnsetType = msgspec.UNSET
    """Of a disk alone."""

    def encode(self) -> bytes:
        """The header as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Read a header. Raises ArchiveDamagedError."""
        try:
            header = msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError as error:
            raise ArchiveDamagedError(f"the archive's header is damaged: {error}") from None
        if header.format != FORMAT or header.kind not in KINDS:
            raise ArchiveDamagedError(
                f"the archive has format {header.format} of kind {header.kind!a}, unknown to this version",
                hint="read it with the version that wrote it, or a later one",
            )
        return header
