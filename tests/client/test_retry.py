"""Retry policy and outages, with a controlled clock and random source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.client.retry import Outage, Retry, is_away, is_retryable
from cryostore.client.transport import ConnectionFailedError
from cryostore.core.digest import Payload
from cryostore.wire.message import Response


def response(status=200, **headers):
    return Response(status, [(name.replace("_", "-"), value) for name, value in headers.items()], Payload())


class Script:
    """Attempts with given outcomes, and a record of the waits between them."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.waits = []

    def attempt(self):
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def run(self, chance=1.0, **options):
        return Retry(random=lambda: chance, sleep=self.waits.append, **options).run(self.attempt)

    def outage(self, wait_seconds):
        """An outage whose clock advances with each wait."""
        self.said = []
        return Outage(wait_seconds, say=self.said.append, now=lambda: sum(self.waits))


def test_success_is_returned_at_once():
    script = Script(response(200))
    assert script.run().status == 200
    assert script.waits == []


def test_waits_double_up_to_a_limit():
    script = Script(*[response(503)] * 8)
    assert script.run(attempts_max=8, delay_first_seconds=1.0, delay_seconds_max=10.0).status == 503
    assert script.waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


def test_the_last_answer_is_returned_after_five_attempts():
    script = Script(*[response(500)] * 4, response(503), response(200))
    assert script.run().status == 503
    assert len(script.outcomes) == 1
    assert len(script.waits) == 4


def test_jitter_is_a_random_part_of_the_limit():
    script = Script(response(500), response(500), response(200))
    script.run(chance=0.25, delay_first_seconds=2.0)
    assert script.waits == [0.5, 1.0]


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0, 1e6))
def test_no_wait_exceeds_the_limit(number, chance, at_least_seconds):
    retry = Retry(random=lambda: chance, delay_seconds_max=20.0)
    assert 0 <= retry.delay_seconds(number, at_least_seconds) <= 20.0


def test_a_failed_connection_is_retried_and_finally_raised():
    failure = ConnectionFailedError("refused")
    script = Script(failure, failure, response(200))
    assert script.run().status == 200
    script = Script(*[failure] * 5)
    with pytest.raises(ConnectionFailedError):
        script.run()
    assert len(script.waits) == 4


def test_an_error_that_is_not_retryable_is_raised_at_once():
    script = Script(ConnectionFailedError("not trusted", retryable=False))
    with pytest.raises(ConnectionFailedError, match="not trusted"):
        script.run()
    assert script.waits == []


@pytest.mark.parametrize(
    ("text", "waits"), [("3", [3.0]), ("100", [20.0]), ("-1", [0.5]), ("soon", [0.5]), ("", [0.5]), ("²", [0.5])]
)
def test_retry_after_in_seconds_is_a_lower_bound(text, waits):
    script = Script(response(429, retry_after=text), response(200))
    script.run(delay_first_seconds=0.5)
    assert script.waits == waits


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_throttling_and_server_errors_are_retryable(status):
    assert is_retryable(response(status))


@pytest.mark.parametrize("name", ["NotReadableInputStreamException", "ThrottlingException"])
def test_some_errors_are_retryable_by_name(name):
    assert is_retryable(response(400, x_amzn_errortype=name))


@pytest.mark.parametrize("status", [200, 202, 301, 400, 403, 404, 409])
def test_other_statuses_are_not_retryable(status):
    assert not is_retryable(response(status, x_amzn_errortype="IllegalArgumentException"))


AWAY = [ConnectionFailedError("refused"), response(502), response(503), response(504)]


@pytest.mark.parametrize("away", AWAY)
def test_a_client_waits_for_a_server_that_answered_before(away):
    script = Script(response(200), *[away] * 12, response(200), response(200))
    outage = script.outage(300)
    assert script.run(outage=outage).status == 200
    assert script.run(outage=outage).status == 200
    assert sum(script.waits) > 100
    assert "waiting up to 300 s" in script.said[0]
    assert script.said[1].startswith("the server answers again after ")
    assert script.run(outage=outage).status == 200
    assert len(script.said) == 2


@pytest.mark.parametrize("away", AWAY)
def test_the_wait_is_limited_and_later_requests_do_not_wait(away):
    script = Script(response(200), *[away] * 1000)
    outage = script.outage(300)
    script.run(outage=outage)
    for seconds in (320, 40):
        before = sum(script.waits)
        try:
            assert script.run(outage=outage) is away
        except ConnectionFailedError as error:
            assert error is away
        assert sum(script.waits) - before <= seconds
    assert sum(script.waits) >= 300
    assert len(script.said) == 1


def test_a_client_does_not_wait_for_a_server_that_never_answered():
    script = Script(*[AWAY[0]] * 5)
    with pytest.raises(ConnectionFailedError):
        script.run(outage=script.outage(300))
    assert script.said == []


def test_an_error_from_the_server_is_not_an_outage():
    full = response(503, x_amzn_errortype="ServiceUnavailableException")
    script = Script(response(200), *[full] * 5)
    outage = script.outage(300)
    script.run(outage=outage)
    assert script.run(outage=outage) is full
    assert script.said == []


# --- outages ----------------------------------------------------------------------------------------------------------


REFUSED = ConnectionFailedError("connection refused")


def answer(status, *headers):
    return Response(status, list(headers), Payload(b""))


class Clock:
    """A clock that the test advances."""

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
def test_a_server_is_away_if_it_did_not_answer_itself(outcome, away):
    assert is_away(outcome) == away


def test_a_client_waits_up_to_the_limit_and_prints_one_message(outage, clock, said):
    outage.note(answer(200))
    for clock.seconds in (0.0, 30.0, 59.9):
        outage.note(REFUSED)
        assert outage.keeps_waiting(REFUSED)
    clock.seconds = 60.0
    outage.note(REFUSED)
    assert not outage.keeps_waiting(REFUSED)
    assert said == ["the server is away (connection refused); waiting up to 60 s"]


def test_the_message_at_the_end_of_an_outage_has_its_length(outage, clock, said):
    outage.note(answer(200))
    outage.note(answer(503))
    assert outage.keeps_waiting(answer(503))
    clock.seconds = 12.0
    outage.note(answer(200))
    assert said == ["the server is away (status 503); waiting up to 60 s", "the server answers again after 12 s"]
    outage.note(REFUSED)
    assert outage.keeps_waiting(REFUSED), "the next outage has the whole time again"


def test_an_outage_without_a_wait_prints_nothing(outage, said):
    outage.note(answer(200))
    outage.note(REFUSED)
    outage.note(answer(200))
    assert said == []


def test_without_any_answer_there_is_no_wait(outage, said):
    outage.note(REFUSED)
    assert not outage.keeps_waiting(REFUSED)
    assert said == []
