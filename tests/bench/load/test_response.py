"""Parsing of a response that arrives in any pieces."""

from __future__ import annotations

import itertools

import pytest
from bench.load.response import Response, ResponseError
from hypothesis import given
from hypothesis import strategies as st


def received(data: bytes, cuts: list[int]) -> Response:
    answer = Response()
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    for start, end in itertools.pairwise(edges):
        if end > start:
            answer.feed(memoryview(data)[start:end])
    return answer


@given(st.binary(max_size=80), st.lists(st.integers(min_value=0, max_value=500), max_size=10))
def test_the_result_is_the_same_for_any_pieces(body, cuts):
    data = b"HTTP/1.1 200 OK\r\nX-A: b\r\ncontent-length:  %d\r\n\r\n" % len(body) + body
    answer = received(data, cuts)
    assert answer.complete
    assert (answer.status, answer.body_bytes, answer.tail) == (200, len(body), body[-16:])


def test_a_response_is_not_complete_before_its_last_byte():
    answer = received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", [])
    assert not answer.complete


def test_the_start_of_an_error_is_kept():
    answer = received(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\nConnection: close\r\n\r\nno key", [50])
    assert (answer.start, answer.is_success, answer.closes) == (b"no key", False, True)


def test_a_head_without_end_is_refused():
    with pytest.raises(ResponseError, match="does not end"):
        received(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, [])
