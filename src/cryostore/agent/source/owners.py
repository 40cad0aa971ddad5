"""Names and numbers of users and groups.

An archive has both, because another machine may have other numbers for the same names.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Iterable
from typing import TypeVar

Found = TypeVar("Found")


def user_names(numbers: Iterable[int]) -> dict[int, str]:
    """The user names of these numbers on this machine. Numbers without a name are left out."""
    return _found(numbers, lambda number: pwd.getpwuid(number).pw_name)


def group_names(numbers: Iterable[int]) -> dict[int, str]:
    """The group names of these numbers on this machine. Numbers without a name are left out."""
    return _found(numbers, lambda number: grp.getgrgid(number).gr_name)


def local_users(names: dict[int, str]) -> dict[int, int]:
    """By user number of an archive, the number on this machine of the user with the same name, if there is one."""
    return _found(names, lambda number: pwd.getpwnam(names[number]).pw_uid)


def local_groups(names: dict[int, str]) -> dict[int, int]:
    """By group number of an archive, the number on this machine of the group with the same name, if there is one."""
    return _found(names, lambda number: grp.getgrnam(names[number]).gr_gid)


def _found(numbers: Iterable[int], find: Callable[[int], Found]) -> dict[int, Found]:
    found = {}
    for number in sorted(numbers):
        try:
            found[number] = find(number)
        except (KeyError, OverflowError, ValueError):  # ValueError: the archive has a name that no machine can have
            continue
    return found
