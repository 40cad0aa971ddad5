"""Attributes of restored entries: ACLs, capabilities, owners that have other numbers here, and refused ones."""

from __future__ import annotations

import errno
import os
import pwd
import stat
import struct

import pytest

from cryostore.agent.block import Extra, ExtraKind
from cryostore.agent.entry import Row
from cryostore.agent.header import Header
from cryostore.agent.restore.attributes import AttributeSetter
from support.archives.agent import Runs, contents, seen, write
from support.faults.os_calls import failing

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")
USER = 4242


def acl(*entries):
    """The bytes of an ACL: tag, permissions, number."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
ACCESS = acl((1, 6, NOBODY), (2, 4, 1234), (4, 4, NOBODY), (16, 6, NOBODY), (32, 0, NOBODY))
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # CAP_NET_BIND_SERVICE


def header(users=None, groups=None):
    return Header(root=b"/", entries=0, files=0, file_bytes=0, objects=[], users=users or {}, groups=groups or {})


def row(mode=0o100644, uid=0, gid=0):
    return Row(mode, uid, gid, 1, 0, 0, 1_000_000_001, 1, 1)


def fail_on_refusal(kind, reason):
    pytest.fail(f"{kind}: {reason}")


@needs_root
def test_acls_and_capabilities_are_restored(local_runs, tmp_path):
    write(tmp_path / "source", {"acl": b"", "program": b"", "folder": {"inside": b""}})
    try:
        os.setxattr(tmp_path / "source" / "acl", "system.posix_acl_access", ACCESS)
        os.setxattr(tmp_path / "source" / "folder", "system.posix_acl_default", ACCESS)
        os.setxattr(tmp_path / "source" / "program", "security.capability", CAPABILITY)
    except OSError as error:
        pytest.skip(f"this file system does not support it: {error}")
    os.chown(tmp_path / "source" / "program", 1, 1)
    os.setxattr(tmp_path / "source" / "program", "security.capability", CAPABILITY)
    os.chmod(tmp_path / "source" / "acl", 0o664)
    local_runs.backup(tmp_path / "source")
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")
    assert "security.capability" in os.listxattr(tmp_path / "target" / "program")
    assert os.listxattr(tmp_path / "target" / "folder" / "inside") == []


@needs_root
def test_inherited_attributes_are_removed(local_runs, tmp_path):
    write(tmp_path / "source", {"file": b"", "folder": {"deep": {"file": b""}}})
    local_runs.backup(tmp_path / "source")
    (tmp_path / "target").mkdir()
    try:
        os.setxattr(tmp_path / "target", "system.posix_acl_default", ACCESS)
    except OSError as error:
        pytest.skip(f"this file system does not support it: {error}")
    os.chown(tmp_path / "target", 0, 4321)
    os.chmod(tmp_path / "target", 0o2755)
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_a_file_without_its_acl_does_not_give_the_mask_to_its_group(local_runs, tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, {"a": b"a"})
    try:
        os.setxattr(source / "a", "system.posix_acl_access", ACCESS)
    except OSError as error:
        pytest.skip(f"this file system does not support it: {error}")
    local_runs.backup(source)
    with failing(monkeypatch, "setxattr", errno.ENOTSUP):
        report = local_runs.restore(target)
    assert report.issue_count == 1
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o600


@needs_root
def test_owners_are_mapped_by_name(tmp_path):
    write(tmp_path, {"file": b""})
    daemon = pwd.getpwnam("daemon")
    there = header(users={77: "daemon", 78: "nobody-has-this-name"}, groups={77: "daemon"})
    for numeric, uid, owner in ((False, 77, daemon.pw_uid), (True, 77, 77), (False, 78, 78)):
        attributes = AttributeSetter(there, numeric_owner=numeric)
        attributes.apply(os.fsencode(tmp_path / "file"), row(uid=uid), [], fail_on_refusal)
        assert (tmp_path / "file").stat().st_uid == owner


def test_attributes_that_the_archive_does_not_have_are_removed(tmp_path):
    write(tmp_path, {"file": b""})
    os.setxattr(tmp_path / "file", "user.old", b"old")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    AttributeSetter(header()).apply(fd, row(), [Extra(ExtraKind.XATTR, b"user.new\0new")], fail_on_refusal)
    os.close(fd)
    assert os.listxattr(tmp_path / "file") == ["user.new"]


def test_an_attribute_that_cannot_be_set_is_reported(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    write(tmp_path, {"file": b""})
    monkeypatch.setattr(os, "setxattr", refuse)
    problems = []
    extras = [Extra(ExtraKind.XATTR, b"trusted.x\0value")]
    place = os.fsencode(tmp_path / "file")
    AttributeSetter(header()).apply(place, row(), extras, lambda kind, reason: problems.append(reason))
    assert problems == ["attribute 'trusted.x' cannot be set: Operation not permitted"]
    assert (tmp_path / "file").stat().st_mtime_ns == 1_000_000_001


@needs_root
def test_a_setuid_program_of_another_user_loses_setuid(tmp_path):
    """If a user other than root restores it, that user owns it, and others must not run it as that user."""
    write(tmp_path, {"file": b""})
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    nobody = 65534
    os.fchown(fd, nobody, nobody)
    os.setegid(nobody)
    os.seteuid(nobody)
    try:
        attributes = AttributeSetter(header())
        found = []
        for uid, gid in ((0, 0), (nobody, 0), (nobody, nobody)):
            attributes.apply(fd, row(0o106755, uid, gid), [], fail_on_refusal)
            found.append(os.fstat(fd).st_mode & 0o7777)
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.close(fd)
    assert found == [0o755, 0o4755, 0o6755]


@pytest.mark.parametrize("call", ["chmod", "utime", "chown", "setxattr", "listxattr", "removexattr", "getxattr"])
@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSPC, errno.EIO])
def test_refused_attributes_are_one_issue_per_kind_and_content_is_restored(
    local_runs, tmp_path, monkeypatch, call, code
):
    source, target = tmp_path / "source", tmp_path / "target"
    link = {} if call == "chown" else {"link": lambda path: os.symlink("a", path)}
    write(source, {"a": b"a", "d": {"b": b"b", "large": os.urandom(3_000_000)}, "pipe": os.mkfifo} | link)
    for name in ("a", "d/b", "d"):
        os.setxattr(source / name, "user.note", b"note")
        os.chmod(source / name, 0o751)
    if os.geteuid() == 0:
        for name in ("a", "d/b"):
            os.chown(source / name, USER, USER)
    local_runs.backup(source)
    with failing(monkeypatch, call, code):
        report = local_runs.restore(target)
    assert contents(target) == contents(source)
    assert set(seen(target)) == set(seen(source))
    assert report.new == report.files + len(link) + 1
    expected = 0 if call in ("removexattr", "getxattr") or (call == "chown" and os.geteuid() != 0) else 1
    assert report.issue_count == expected
    if expected:
        assert "more)" in report.issues[0].reason


def test_attributes_that_are_already_right_are_no_issue(local_runs, tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, {"a": b"a"})
    os.chmod(source / "a", 0o600)
    local_runs.backup(source)
    with failing(monkeypatch, "chmod", errno.EPERM):
        report = local_runs.restore(target)
    assert [issue.path for issue in report.issues] == [b""]  # the folder is created with another mode


@needs_root
@pytest.mark.parametrize("mode", [0o200, 0o000, 0o333])
def test_a_second_restore_over_unreadable_files_changes_what_it_can(client, as_nobody, mode):
    runs = Runs(client, f"locked-{mode:o}")
    source, target = as_nobody / "source", as_nobody / "target"
    write(source, {"locked": b"locked", "open": b"open"})
    os.setxattr(source / "locked", "user.note", b"note")
    runs.backup(source)
    runs.restore(target)
    os.chmod(target / "locked", mode)
    report = runs.restore(target)
    assert (report.new, report.unchanged, report.issue_count) == (0, 2, 0)
    assert seen(target) == seen(source)


@needs_root
def test_a_second_restore_of_unreadable_files_has_nothing_to_do(client, as_nobody):
    runs = Runs(client, "unreadable")
    source, target = as_nobody / "source", as_nobody / "target"
    write(source, {"locked": b"locked"})
    os.setxattr(source / "locked", "user.note", b"note")
    os.seteuid(0)
    try:
        os.chmod(source / "locked", 0o200)
        runs.backup(source)
    finally:
        os.seteuid(65534)
    runs.restore(target)
    report = runs.restore(target)
    assert (report.new, report.unchanged, report.issue_count) == (0, 1, 0)
