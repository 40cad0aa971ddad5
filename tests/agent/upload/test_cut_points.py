"""Keyed cut points: the same under one key, different under another, and after several pieces."""

from __future__ import annotations

import itertools
import random

from cryostore.agent.upload.cut_points import CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, KeyedChunker, keyed_path_hash
from cryostore.core.limits import KIB, MIB

DATA = random.Random(5).randbytes(24 * MIB)


def ends(secret, data=DATA):
    lengths = list(KeyedChunker(secret).cuts(memoryview(data)))
    assert sum(lengths) == len(data)
    found, at = set(), 0
    for length in lengths:
        at += length
        found.add(at)
    return found, lengths


def test_only_the_same_key_gives_the_same_cuts():
    first, _ = ends(bytes(32))
    again, _ = ends(bytes(32))
    other, _ = ends(bytes([1]) * 32)
    assert first == again
    assert first & other == {len(DATA)}


def test_the_cuts_depend_on_permutation_piece_key_and_pieces():
    first, _ = ends(bytes(32))
    for part, value in (("_permutation", bytes(range(256))), ("_piece_key", bytes(32)), ("_pieces", None)):
        cutter = KeyedChunker(bytes(32))
        setattr(cutter, part, value or KeyedChunker(bytes([1]) * 32)._pieces)
        assert list(itertools.accumulate(cutter.cuts(memoryview(DATA)))) != sorted(first)


def test_chunks_have_several_pieces():
    _, lengths = ends(bytes(32))
    assert all(CHUNK_BYTES_MIN <= length <= CHUNK_BYTES_MAX for length in lengths[:-1])
    assert 6 <= len(lengths) <= 24


def test_an_insertion_moves_nearby_cuts_only():
    before, _ = ends(bytes(32))
    at = 10 * MIB
    after, _ = ends(bytes(32), DATA[:at] + b"inserted" + DATA[at:])
    moved = {end + 8 if end > at else end for end in before}
    assert len(moved - after) <= 3
    assert {end for end in before if end < at - 5 * MIB} <= after


def test_repeating_bytes_are_cut_at_the_maximum():
    for byte in (0, 1, 255):
        _, lengths = ends(bytes(32), bytes([byte]) * (9 * MIB))
        assert max(lengths) <= CHUNK_BYTES_MAX
        assert min(lengths[:-1]) >= CHUNK_BYTES_MIN


def test_a_prefix_has_the_same_cuts():
    """Only the last cut differs from the cuts of the whole data."""
    whole = list(KeyedChunker(bytes(32)).cuts(memoryview(DATA)))
    for length in (1, 700 * KIB, 5 * MIB + 1, 9 * MIB, 13 * MIB + 12345):
        part = list(KeyedChunker(bytes(32)).cuts(memoryview(DATA)[:length]))
        assert part[:-1] == whole[: len(part) - 1]


def test_the_cuts_of_small_files_and_listings_depend_on_the_key():
    cutters = [KeyedChunker(bytes([n]) * 32) for n in range(2)]
    assert cutters[0].chance(b"digest") != cutters[1].chance(b"digest")
    assert keyed_path_hash(bytes(32), b"path") != keyed_path_hash(bytes([1]) * 32, b"path")
    assert 0 <= cutters[0].chance(b"x") < 1 << 32
