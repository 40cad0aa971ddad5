"""Makes read-only directories of the target writable during a restore, and restores their modes at the end."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from cryostore.agent.restore.target_directories import TargetDirectories


class ReadonlyDirectories:
    """The directories that were made writable, by number, with their previous modes. Root does not need this."""

    def __init__(self, target: TargetDirectories) -> None:
        self._target = target
        self._user = os.geteuid()
        self._modes: dict[int, int] = {}

    def make_writable(self, number: int, parent: int, name: bytes) -> None:
        """Let this user write in a directory, if this user owns it. Raises OSError."""
        if self._user == 0:
            return
        fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            existing = os.fstat(fd)
            mode = stat.S_IMODE(existing.st_mode)
            if existing.st_uid == self._user and mode & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(b"/proc/self/fd/%d" % fd, mode | stat.S_IRWXU)
                self._modes[number] = mode
        finally:
            os.close(fd)

    def keep_mode(self, number: int) -> None:
        """Forget the previous mode of a directory: it has its restored mode now."""
        self._modes.pop(number, None)

    def close(self) -> None:
        """Restore the previous modes that are left, subdirectories first."""
        for number, mode in reversed(self._modes.items()):
            with suppress(OSError), self._target.at(number) as fd:
                os.chmod(fd, mode)
