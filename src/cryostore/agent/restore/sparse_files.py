"""Sparse files and devices in a restore: data is written around the holes, and old data in a hole is punched out.

A new file needs no zeros: the writer fills the ranges that `archive.sparse_layout` names and sets the length at the
end. A file or block device that is written in place gets its zeros from `write_zeros`.
"""

from __future__ import annotations

import ctypes
import errno
import os

from cryostore.core.digest import Buffer
from cryostore.core.limits import MIB

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
COMPARED_BYTES = 4 * MIB
ZEROS = bytes(MIB)

_libc = ctypes.CDLL(None)
_fallocate = getattr(_libc, "fallocate", None)  # only Linux has it
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def write_zeros(fd: int, offset: int, length: int) -> None:
    """Make a range zeros: punch a hole or discard blocks if the system can, else write zeros. Raises OSError."""
    if _fallocate is not None and not _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length):
        return
    while length:
        written = os.pwrite(fd, ZEROS[:length], offset)
        offset += written
        length -= written


def is_zero(fd: int, offset: int, length: int) -> bool:
    """Return whether a range of a file or device reads as zeros. Holes are skipped, not read. Raises OSError."""
    at, end = offset, offset + length
    while at < end:
        try:
            at = max(at, os.lseek(fd, at, os.SEEK_DATA))
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return True
        data = pread_all(fd, at, min(COMPARED_BYTES, end - at)) if at < end else b""
        if data.count(0) != len(data):
            return False
        at += len(data) or end
    return True


def pread_all(fd: int, offset: int, length: int) -> bytes:
    """Return `length` bytes from an offset on, fewer only at the end of the file. Raises OSError."""
    data = os.pread(fd, length, offset)
    while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
        data += more
    return data


def pwrite_all(fd: int, data: Buffer, offset: int) -> None:
    """Write all of the data at an offset. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written
