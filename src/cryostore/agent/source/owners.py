"""Users and groups: an archive has their numbers and their names, and a machine has its own numbers for the names."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Iterable
from typing import TypeVar

Found = TypeVar("Found")


def user_names(numbers: Iterable[int]) -> dict[int, str]:
    """The names this machine has for users, of those that have one."""
    return _found(numbers, lambda number: pwd.getpwuid(number).pw_name)


def group_names(numbers: Iterable[int]) -> dict[int, str]:
    """The names this machine has for groups, of those that have one."""
    return _found(numbers, lambda number: grp.getgrgid(number).gr_name)


def local_users(names: dict[int, str]) -> dict[int, int]:
    """The numbers here for those of an archive, of users whose names are known here."""
    return _found(names, lambda number: pwd.getpwnam(names[number]).pw_uid)


def local_groups(names: dict[int, str]) -> dict[int, int]:
    """The numbers here for those of an archive, of groups whose names are known here."""
    return _found(names, lambda number: grp.getgrnam(names[number]).gr_gid)


def _found(numbers: Iterable[int], find: Callable[[int], Found]) -> dict[int, Found]:
    found = {}
    for number in sorted(numbers):
        try:
            found[number] = find(number)
        except (KeyError, OverflowError, ValueError):  # the last: a name in an archive that no machine can have
            continue
    return found
