"""The digest table behaves like a dict that keeps the first value."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from cryostore.agent.upload.digest_table import ContentLocation, DigestTable

# Few values for the bytes that choose a slot, so that digests collide.
SLOTS = st.integers(0, 3).map(lambda slot: bytes([slot]) + bytes(7))
DIGESTS = st.builds(bytes.__add__, SLOTS, st.binary(min_size=8, max_size=8))


@given(st.lists(st.tuples(DIGESTS, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))))
def test_the_first_location_of_a_digest_is_kept(entries):
    table, expected = DigestTable(), {}
    for digest, *place in entries:
        table.add(digest, *place)
        expected.setdefault(digest, ContentLocation(*place))
    assert len(table) == len(expected)
    assert {digest: table.find(digest) for digest in expected} == expected
    assert table.find(bytes(15) + b"\7") is None


def test_the_table_grows():
    table = DigestTable(32)
    digests = [sha256(b"%d" % number).digest() for number in range(5000)]
    for number, digest in enumerate(digests):
        table.add(digest, 1, number, 2)
    assert all(table.find(digest) == ContentLocation(1, number, 2) for number, digest in enumerate(digests))
    assert sha256(b"other").digest() not in table
