"""The limit of open files."""

from __future__ import annotations

from cryostore.core import open_files


def test_as_many_files_may_be_open_as_the_system_allows(monkeypatch):
    limits = []
    monkeypatch.setattr(open_files.resource, "getrlimit", lambda _: (10, 20))
    monkeypatch.setattr(open_files.resource, "setrlimit", lambda _, both: limits.append(both))
    open_files.raise_open_file_limit()
    assert limits == [(20, 20)]


def test_a_system_that_refuses_changes_nothing(monkeypatch):
    def refuse(*_):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(open_files.resource, "setrlimit", refuse)
    open_files.raise_open_file_limit()
