"""Standard output of which no write that waits for a reader keeps a run that was told to end."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Any, cast

from cryostore.core.interrupts import waiting

READER_MS = 100
"""How long, at the end of such a run, its reader has for each part of what was printed until then."""


class Output(io.RawIOBase):
    """A descriptor that is written to. A KeyboardInterrupt that comes while it takes nothing is raised at once."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._poller = select.poll()
        self._poller.register(fd, select.POLLOUT)
        self.ends = False
        """Whether the run ends: what cannot be written any more is left out."""

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._fd)

    def write(self, data: Any, /) -> int | None:
        """Write some of the data; answers how much, None if it would have to wait and must not."""
        view = memoryview(data).cast("B")
        if self.ends:
            if not self._poller.poll(READER_MS):
                return len(view)
            view = view[: select.PIPE_BUF]  # for so much there is room
        try:
            with waiting:
                return os.write(self._fd, view)
        except BlockingIOError:
            return None


def open_output() -> Output:
    """Put such a standard output in the place of Python's own; once in a process."""
    old = cast("io.TextIOWrapper", sys.stdout)
    output = Output(old.fileno())
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=old.encoding,
        errors=old.errors,
        line_buffering=old.line_buffering,
        write_through=old.write_through,
    )
    return output
