"""Header of an archive: JSON metadata beside its listing. Table: docs/reference/archive.md.

The header has no time and no id, so that an unchanged tree has an unchanged header.
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
"""A file tree; a stream, as one file; a disk image, as one file in blocks."""


def content_name(number: int) -> str:
    """The name of a content object."""
    return f"{CONTENT_PREFIX}{number:08d}"


class ContentObject(msgspec.Struct, frozen=True, omit_defaults=True):
    """A content object: its bytes, and how many of them files of the tree still use."""

    number: int
    content_bytes: int
    live_bytes: int
    mark: bytes = b""
    """Only in a sealed archive: identifies the head of the object."""


class DiskLayout(msgspec.Struct, frozen=True, omit_defaults=True):
    """The layout of a disk image: each segment is an object, each block a chunk of it. A block of zeros has no chunk.

    `unread` has offset and length of the first areas that could not be read and are zeros in the image.
    """

    disk_bytes: int
    block_bytes: int
    segment_bytes: int
    unread: list[tuple[int, int]]
    segments: list[int] = []
    """The numbers of the segments that have an object. If such an object is missing, its bytes are lost, not zeros."""
    marks: dict[str, bytes] = {}
    """Only in a sealed archive: the marks of the heads of its segments, by their names."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that a reader needs before the listing. Names and paths are bytes, in base64."""

    format: int = FORMAT
    kind: str = FILESET
    root: bytes
    only: list[bytes] | None = None
    """The paths below the root that were backed up; the whole tree if absent."""
    entries: int
    files: int
    file_bytes: int
    objects: list[ContentObject]
    users: dict[int, str]
    groups: dict[int, str]
    disk: DiskLayout | msgspec.UnsetType = msgspec.UNSET
    """Only in the archive of a disk."""

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
