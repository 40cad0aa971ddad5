"""Names and numbers of users and groups: only those that this machine knows."""

from __future__ import annotations

import grp
import pwd

import pytest

from cryostore.agent.source.owners import group_names, local_groups, local_users, user_names

UNKNOWN = 4_000_000_000


def test_numbers_have_the_names_of_this_machine():
    assert user_names([0, UNKNOWN]) == {0: pwd.getpwuid(0).pw_name}
    assert group_names([0, UNKNOWN]) == {0: grp.getgrgid(0).gr_name}


def test_names_have_the_numbers_of_this_machine():
    assert local_users({77: pwd.getpwuid(0).pw_name, 78: "nobody of this name"}) == {77: 0}
    assert local_groups({77: grp.getgrgid(0).gr_name, 78: "no group of this name"}) == {77: 0}


@pytest.mark.parametrize("name", ["", "with\0zero", "x" * 5000])
def test_a_name_that_no_machine_can_have_is_left_out(name):
    assert local_users({1: name}) == {}
    assert local_groups({1: name}) == {}
