"""Reader of source entries: their extended attributes, and why some are missing.

Tests of backup runs cover how it reads files.
"""

from __future__ import annotations

import errno
import os

import pytest

from cryostore.agent.block import Extra, ExtraKind
from cryostore.agent.source import file_reader
from cryostore.agent.source.file_reader import Attributes, read_attributes, read_directory_attributes


@pytest.fixture
def attributes(monkeypatch):
    """The attributes of every file; an OSError as the value is raised."""
    values = {}

    def listed(_, *, follow_symlinks):
        if "listing" in values:
            raise values["listing"]
        return [name for name in values if name != "hidden"]

    def value(_, name, *, follow_symlinks):
        found = values.get(name, OSError(errno.ENODATA, "No data available"))
        if isinstance(found, OSError):
            raise found
        return found

    monkeypatch.setattr(os, "listxattr", listed)
    monkeypatch.setattr(os, "getxattr", value)
    return values


def xattr(name, value):
    return Extra(ExtraKind.XATTR, name + b"\0" + value)


def test_attributes_are_sorted_by_name(attributes):
    attributes |= {"user.b": b"2", "user.a": b"1"}
    assert read_attributes(0) == Attributes([xattr(b"user.a", b"1"), xattr(b"user.b", b"2")], [])


def test_an_attribute_that_cannot_be_read_is_missing(attributes):
    attributes |= {"user.a": OSError(errno.EIO, "Input/output error"), "user.b": b"2"}
    found = read_attributes(b"path")
    assert found == Attributes([xattr(b"user.b", b"2")], ["attribute 'user.a' cannot be read: Input/output error"])


def test_an_attribute_that_was_removed_meanwhile_is_not_missing(attributes):
    attributes["user.a"] = OSError(errno.ENODATA, "No data available")
    assert read_attributes(0) == Attributes([], [])


@pytest.mark.parametrize("code", file_reader.UNSUPPORTED)
def test_a_file_system_without_attributes(attributes, code):
    attributes["listing"] = OSError(code, "no attributes")
    assert read_attributes(0) == Attributes([], [])


def test_common_attributes_are_read_by_name_if_they_cannot_be_listed(attributes):
    attributes |= {"listing": OSError(errno.EACCES, "Permission denied"), "security.capability": b"c"}
    found = read_attributes(0)
    assert found.extras == [xattr(b"security.capability", b"c")]
    assert found.missing == ["its extended attributes cannot be listed: Permission denied"]


def test_attributes_that_are_too_long_are_left_out(attributes, monkeypatch):
    monkeypatch.setattr(file_reader, "ENTRY_BYTES_MAX", 20)
    attributes |= {"user.a": b"1" * 10, "user.b": b"2" * 10, "user.c": b""}
    found = read_attributes(0)
    assert found.extras == [xattr(b"user.a", b"1" * 10)]
    assert found.missing == ["attribute 'user.b' and those after it are left out: together they are too long"]


def test_a_directory_that_is_gone_has_no_attributes(tmp_path):
    parent = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert read_directory_attributes(parent, b"gone") == Attributes([], [], gone=True)
        (tmp_path / "there").mkdir()
        assert not read_directory_attributes(parent, b"there").missing
    finally:
        os.close(parent)
