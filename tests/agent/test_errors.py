"""Errors of the agent: path and reason, and the safe display of paths."""

import errno

import pytest

from cryostore.agent.errors import SourceError, TargetError, shown


def test_an_error_has_the_reason_of_the_operating_system():
    error = SourceError.of(b"path", OSError(errno.EACCES, "Permission denied"))
    assert (error.path, error.reason, error.errno) == (b"path", "Permission denied", errno.EACCES)
    target = TargetError.of(b"path", OSError(errno.EROFS, "Read-only file system"))
    assert (target.path, target.reason) == (b"path", "Read-only file system")


def test_an_error_without_a_reason_has_its_text():
    assert SourceError.of(b"path", OSError("odd")).reason == "odd"
    assert TargetError.of(b"path", OSError("odd")).reason == "odd"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"plain/name", "plain/name"),
        ("\u00e4\u4e16".encode(), "\u00e4\u4e16"),
        (b"a\x1b[2Jb", "a\\x1b[2Jb"),
        (b"back\\slash", "back\\\\slash"),
        (b"bad\xff", "bad\\xff"),
        (b"line\nbreak", "line\\x0abreak"),
    ],
)
def test_paths_are_shown_without_control_characters(path, text):
    assert shown(path) == text


def test_control_characters_in_names_are_escaped():
    assert shown("ä b".encode()) == "ä b"
    assert shown(b"\x1b[2J") == r"\x1b[2J"
    assert shown(b"a\nb\xff\\") == r"a\x0ab\xff\\"
    assert shown("\u202eevil".encode()) == r"\xe2\x80\xaeevil"
