"""Checks of the connection to a server."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from cryostore.cli.doctor import server
from cryostore.client.health import health_of
from cryostore.core.diagnosis import ERROR, OK, WARNING
from cryostore.core.digest import Payload
from cryostore.core.time import wall_clock
from cryostore.wire.message import Response


@pytest.mark.parametrize(("off", "level"), [(0, OK), (-50, OK), (100, WARNING), (-100, WARNING), (1000, ERROR)])
def test_clocks(off, level):
    now_ms = wall_clock()
    answer = Response(200, [("date", formatdate(now_ms / 1000 - off, usegmt=True))], Payload(b""))
    assert server._clock(health_of(answer), now_ms).level == level


def test_a_clock_that_is_not_shown():
    assert server._clock(health_of(Response(200, [], Payload(b""))), 0).level == WARNING


def test_something_else_that_answers():
    for body in (b"<html>", b"[]", b"{}"):
        answer = Response(404, [], Payload(body))
        assert server._endpoint("http://host", health_of(answer)).level == WARNING
    other = Response(200, [], Payload(b'{"status":"ok","version":"0.0.0"}'))
    assert "upgrade" in server._endpoint("http://host", health_of(other)).advice


@pytest.mark.parametrize(
    ("url", "level"),
    [("http://127.0.0.1:1", OK), ("http://[::1]:1", OK), ("https://far.example", OK), ("http://far.example", WARNING)],
)
def test_the_way_to_the_server(url, level):
    assert server._encryption(url).level == level
