"""How long sealed bytes are made, so that their length tells little of what is in them.

Lengths are rounded up to five or so significant bits, as Padme does, and to whole quanta below: whoever sees a length
learns its size class, one in some thirty to a doubling, and for a few bytes nothing at all.
"""

from __future__ import annotations


def padded_length(length: int, quantum_bytes: int) -> int:
    """The least length allowed for `length` bytes: never below them, at most 1/16 or one quantum above."""
    exponent = max(length, 2).bit_length() - 1
    step = max(1 << (exponent - exponent.bit_length()), quantum_bytes)
    return max(-(-length // step), 1) * step
