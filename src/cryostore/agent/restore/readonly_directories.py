"""Directories of a target that their owner may not write in: opened while a restore lasts, and shut again."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from cryostore.agent.restore.target_directories import TargetDirectories


class ReadonlyDirectories:
    """Those that were opened, by number, with the modes they had. Root needs no such thing."""

    def __init__(self, target: TargetDirectories) -> None:
        self._target = target
        self._user = os.geteuid()
        self._modes: dict[int, int] = {}

    def open_up(self, number: int, parent: int, name: bytes) -> None:
        """Let the owner of a directory, if that is this user, write in it. Raises OSError."""
        if self._user == 0:
            return
        fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            standing = os.fstat(fd)
            mode = stat.S_IMODE(standing.st_mode)
            if standing.st_uid == self._user and mode & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(b"/proc/self/fd/%d" % fd, mode | stat.S_IRWXU)
                self._modes[number] = mode
        finally:
            os.close(fd)

    def ended(self, number: int) -> None:
        """Leave a directory as it is now: it has the mode that was restored."""
        self._modes.pop(number, None)

    def close(self) -> None:
        """Shut what is still open, those in others first."""
        for number, mode in reversed(self._modes.items()):
            with suppress(OSError), self._target.at(number) as fd:
                os.chmod(fd, mode)
