"""Validation of archive entries before they are restored."""

from __future__ import annotations

import stat

import pytest

from cryostore.agent.archive.listing import ArchiveEntry
from cryostore.agent.block import Extra, ExtraKind
from cryostore.agent.entry import NO_CONTENT, Content, Row
from cryostore.agent.restore.entry_validation import LINK_TARGET_BYTES_MAX, XATTR_BYTES_MAX, entry_fault, xattr_fault


def entry(mode, size=0, content=NO_CONTENT, extras=()):
    return ArchiveEntry(b"name", Row(mode, 0, 0, 1, 0, size, 0, 1, 1), content, list(extras))


def link(target):
    return entry(stat.S_IFLNK | 0o777, extras=[Extra(ExtraKind.LINK_TARGET, target)])


def holes(*numbers):
    return [Extra(ExtraKind.HOLES, b"".join(number.to_bytes(8, "little") for number in numbers))]


@pytest.mark.parametrize(
    "sound",
    [
        entry(stat.S_IFREG | 0o600),
        entry(stat.S_IFREG | 0o600, 10, Content(1, 0, 0)),
        entry(stat.S_IFREG | 0o600, 10, extras=holes(0, 10)),
        entry(stat.S_IFDIR | 0o700),
        entry(stat.S_IFIFO | 0o600),
        link(b"x" * LINK_TARGET_BYTES_MAX),
    ],
)
def test_a_sound_entry_has_no_fault(sound):
    assert entry_fault(sound) is None


@pytest.mark.parametrize(
    ("damaged", "fault"),
    [
        (entry(stat.S_IFREG | 0o600, -1), "has the size -1"),
        (entry(stat.S_IFREG | 0o600, 10), "has no content"),
        (entry(stat.S_IFREG | 0o600, 10, Content(1, 0, 0), holes(5, 6)), "a file's holes are damaged"),
        (link(b""), "is a symlink without a target"),
        (link(b"a\0b"), "is a symlink without a target"),
        (link(b"x" * (LINK_TARGET_BYTES_MAX + 1)), "is a symlink without a target"),
        (entry(stat.S_IFSOCK | 0o600), "has the mode 140600, which is not of a kind that can be restored"),
        (entry(stat.S_IFCHR | 0o600), "has the mode 20600, which is not of a kind that can be restored"),
    ],
)
def test_the_fault_of_a_damaged_entry_is_returned(damaged, fault):
    assert entry_fault(damaged) == fault


@pytest.mark.parametrize(
    "data", [b"user.name", b"\0value", b"x" * 256 + b"\0", b"user.name\0" + bytes(XATTR_BYTES_MAX + 1)]
)
def test_an_entry_with_a_damaged_extended_attribute_can_be_restored(data):
    damaged = entry(stat.S_IFREG | 0o600, extras=[Extra(ExtraKind.XATTR, data)])
    assert entry_fault(damaged) is None
    assert xattr_fault(damaged) == "an extended attribute is damaged"
    assert xattr_fault(entry(stat.S_IFREG | 0o600, extras=[Extra(ExtraKind.XATTR, b"user.name\0value")])) is None
