"""Making a part of a file or of a block device zeros without writing them, where the system can."""

from __future__ import annotations

import ctypes
import os

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
ZEROS = bytes(1024 * 1024)

_libc = ctypes.CDLL(None)
_fallocate = getattr(_libc, "fallocate", None)  # Linux alone has it
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def write_zeros(fd: int, offset: int, length: int) -> None:
    """Make it zeros: a hole, or discarded blocks that read as zeros, or else zeros. Raises OSError."""
    if _fallocate is not None and not _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length):
        return
    while length:
        written = os.pwrite(fd, ZEROS[:length], offset)
        offset += written
        length -= written
