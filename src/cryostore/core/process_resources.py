"""Resources of this process: memory of large buffers, and the limit on open files and connections.

By default the C library maps each buffer above 128 KiB again and unmaps it at once. A process that handles chunks of
some megabytes all day then spends as much time on fresh, zeroed pages as on the bytes themselves. By default Python
also fills each buffer with zeros that are then overwritten. See docs/explanation/performance.md.
"""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress

from cryostore.core.limits import MIB

MMAP_THRESHOLD_BYTES = 32 * MIB
TRIM_THRESHOLD_BYTES = 128 * MIB
ARENAS_MAX = 2
UNFILLED_BYTES_MIN = 32 * 1024
"""Below this length, zeros cost less than the call that avoids them."""
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_new_bytearray = ctypes.pythonapi.PyByteArray_FromStringAndSize
_new_bytearray.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t)
_new_bytearray.restype = ctypes.py_object


def unfilled(length: int) -> bytearray:
    """A buffer with the earlier content of its memory.

    Use it only if every byte is written before any byte is read, and drop it if the write fails.
    """
    if length < UNFILLED_BYTES_MIN:
        return bytearray(length)
    made: bytearray = _new_bytearray(None, length)
    return made


def keep_buffers() -> bool:
    """Make the C library keep freed buffers for the next chunk, up to a limit.

    Call once, before the first thread starts.

    Returns whether the C library accepted it: glibc does, others have no such settings and stay as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = (
        (_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES),
        (_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES),
        (_M_ARENA_MAX, ARENAS_MAX),
    )
    return all(mallopt(name, value) == 1 for name, value in settings)


def open_file_limit() -> int:
    """How many files and connections this process may have open now; negative for no limit. It can change any time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def raise_open_file_limit() -> None:
    """Raise the limit as far as the system allows: for connections, and for the directories that a walk keeps open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
