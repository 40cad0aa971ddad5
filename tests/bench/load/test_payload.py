"""Bodies of requests: distinct, of the given length and digest, and as compressible as their kind."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from bench.load.payload import Payload


@pytest.mark.parametrize("kind", ["random", "half"])
@pytest.mark.parametrize("body_bytes", [16, 17, 4096, 100_000])
def test_bodies_are_distinct_and_have_their_length_and_digest(body_bytes, kind):
    payload = Payload(body_bytes, kind)
    bodies = [payload.body(index) for index in range(5)]
    assert {len(body) for body in bodies} == {body_bytes}
    assert len(set(bodies)) == 5
    assert [payload.digest(index) for index in range(5)] == [hashlib.sha256(body).digest() for body in bodies]


def test_two_payloads_share_no_body():
    first, second = Payload(16), Payload(16)
    assert not {first.body(index) for index in range(100)} & {second.body(index) for index in range(100)}


def test_only_half_random_bodies_compress():
    size = 256 * 1024
    assert len(zlib.compress(Payload(size).body(0))) > 0.99 * size
    assert 0.5 * size < len(zlib.compress(Payload(size, "half").body(0))) < 0.75 * size


def test_impossible_payloads_are_refused():
    with pytest.raises(ValueError, match="at least 16"):
        Payload(15)
    with pytest.raises(ValueError, match="random, half"):
        Payload(4096, "zero")
