"""Outage of a server: when a client waits, for how long, and its messages."""

from __future__ import annotations

import pytest

from cryostore.client.outage import Outage, is_away
from cryostore.client.transport import ConnectionFailedError
from cryostore.core.digest import Payload
from cryostore.wire.message import Response

REFUSED = ConnectionFailedError("connection refused")


def answer(status, *headers):
    return Response(status, list(headers), Payload(b""))


class Clock:
    """A clock that stands still until it is moved."""

    seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def said():
    return []


@pytest.fixture
def outage(clock, said):
    return Outage(60.0, say=said.append, now=clock)


@pytest.mark.parametrize(
    ("outcome", "away"),
    [
        (REFUSED, True),
        (ConnectionFailedError("untrusted certificate", retryable=False), False),
        (answer(502), True),
        (answer(503), True),
        (answer(504), True),
        (answer(503, ("x-amzn-errortype", "ServiceUnavailableException")), False),
        (answer(500), False),
        (answer(200), False),
    ],
)
def test_a_server_is_away_if_nothing_of_it_answered(outcome, away):
    assert is_away(outcome) == away


def test_a_client_waits_until_the_limit_and_says_so_once(outage, clock, said):
    outage.note(answer(200))
    for clock.seconds in (0.0, 30.0, 59.9):
        outage.note(REFUSED)
        assert outage.keeps_waiting(REFUSED)
    clock.seconds = 60.0
    outage.note(REFUSED)
    assert not outage.keeps_waiting(REFUSED)
    assert said == ["the server is away (connection refused); waiting up to 60 s"]


def test_a_server_that_is_back_is_reported_with_the_length_of_its_outage(outage, clock, said):
    outage.note(answer(200))
    outage.note(answer(503))
    assert outage.keeps_waiting(answer(503))
    clock.seconds = 12.0
    outage.note(answer(200))
    assert said == ["the server is away (status 503); waiting up to 60 s", "the server answers again after 12 s"]
    outage.note(REFUSED)
    assert outage.keeps_waiting(REFUSED), "the next outage has the whole time again"


def test_an_outage_that_was_not_reported_ends_silently(outage, said):
    outage.note(answer(200))
    outage.note(REFUSED)
    outage.note(answer(200))
    assert said == []


def test_a_client_without_any_answer_does_not_wait(outage, said):
    outage.note(REFUSED)
    assert not outage.keeps_waiting(REFUSED)
    assert said == []
