"""The limit on open files is read anew each time and raised as far as the system allows."""

import resource

import pytest

from cryostore.core.open_files import open_file_limit, raise_open_file_limit


def test_the_limit_is_the_soft_one_of_this_moment(monkeypatch):
    limits = iter([(10, 20), (15, 20)])
    monkeypatch.setattr(resource, "getrlimit", lambda _: next(limits))
    assert [open_file_limit(), open_file_limit()] == [10, 15]


def test_the_limit_is_raised_to_the_hard_one(monkeypatch):
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 20))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limits.append(both))
    raise_open_file_limit()
    assert limits == [(20, 20)]


@pytest.mark.parametrize("error", [OSError(1, "not permitted"), ValueError("not allowed to raise maximum limit")])
def test_a_refusal_leaves_the_limit_as_it_is(monkeypatch, error):
    def refuse(_, both):
        raise error

    monkeypatch.setattr(resource, "setrlimit", refuse)
    before = open_file_limit()
    raise_open_file_limit()
    assert open_file_limit() == before
