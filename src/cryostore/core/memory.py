"""How this process comes by large buffers, and holds on to their memory in between.

The C library's habit is to map each buffer above 128 KiB anew and to give it back at once. A process that handles
chunks of some megabytes all day then spends as long on fresh, zeroed pages as on the bytes themselves. Python's own
habit is to fill each buffer with zeros, which are then overwritten. See docs/explanation/performance.md.
"""

from __future__ import annotations

import ctypes

from cryostore.core.limits import MIB

MMAP_THRESHOLD_BYTES = 32 * MIB
TRIM_THRESHOLD_BYTES = 128 * MIB
ARENAS_MAX = 2
UNFILLED_BYTES_MIN = 32 * 1024
"""Below, zeros cost less than the call that spares them."""
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_new_bytearray = ctypes.pythonapi.PyByteArray_FromStringAndSize
_new_bytearray.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t)
_new_bytearray.restype = ctypes.py_object


def unfilled(length: int) -> bytearray:
    """A buffer with whatever was in its memory before.

    Only for who writes every byte of it before anybody reads one, and drops it if that fails.
    """
    if length < UNFILLED_BYTES_MIN:
        return bytearray(length)
    made: bytearray = _new_bytearray(None, length)
    return made


def keep_buffers() -> bool:
    """Keep freed buffers for the next chunk, up to a bound. Call once, before the first thread starts.

    Answers whether the C library took it: glibc does, others have no such settings and are left alone.
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
