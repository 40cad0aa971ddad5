"""Entries of an archive's listing, and paths as users write them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cryostore.agent.archive.listing import ArchiveEntry, archive_path, block_entries, block_entry
from cryostore.agent.block import Extra, ExtraKind, Kind, decode, encode
from cryostore.agent.entry import NO_CONTENT, Content, Row

FILE, FOLDER = (Row(mode, 0, 0, 1, 0, 0, 1, 1, number) for number, mode in enumerate((0o100644, 0o040755), 1))
NOTE = Extra(ExtraKind.XATTR, b"user.note\0value")


def test_entries_have_the_path_of_their_directory():
    contents = [Content(1, 2, 3).pack(), NO_CONTENT.pack()]
    (block,) = decode(
        encode(
            Kind.DIRECTORY, b"a/b", b"file\0folder\0"[:5] + b"g\0", [FILE.pack(), FOLDER.pack()], contents, {1: [NOTE]}
        )
    )
    expected = [
        ArchiveEntry(b"a/b/file", FILE, Content(1, 2, 3), []),
        ArchiveEntry(b"a/b/g", FOLDER, NO_CONTENT, [NOTE]),
    ]
    assert list(block_entries(block)) == expected
    assert [block_entry(block, index) for index in range(2)] == expected


@pytest.mark.parametrize(
    ("root", "text", "path"),
    [
        (b"/srv/data", "", b""),
        (b"/srv/data", ".", b""),
        (b"/srv/data", "/srv/data", b""),
        (b"/srv/data", "/srv/data/a//b/", b"a/b"),
        (b"/srv/data", "/srv/database", b"srv/database"),
        (b"/srv/data", "a/../b", b"b"),
        (b"/", "/etc/hosts", b"etc/hosts"),
        (b"/", "/", b""),
    ],
)
def test_a_path_is_taken_below_the_root_of_the_archive(root, text, path):
    assert archive_path(SimpleNamespace(header=SimpleNamespace(root=root)), text) == path
