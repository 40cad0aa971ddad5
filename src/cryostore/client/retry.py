"""Retry policy: which requests to repeat, the delay before each attempt, and the wait during an outage.

Every operation may be repeated (Backup Storage A.3): the same request carries the same token, checksum and content. If
the first request succeeded and only its answer was lost, a repetition may have one of these effects:

- DeleteObject, DeleteBackupVault, DeleteRecoveryPoint: ResourceNotFoundException, because it is already deleted.
- StartObject and PutObject with the throw flag: DataAlreadyExistsException with the checksum of the data just stored.
- StartObject: a second upload. The first stays open until the job ends, so commit with DiscardOpenUploads.

A client that has had an answer waits for its server to come back, for example after a restart (`Outage`). It does not
wait for a server that never answered: the address is probably wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from time import monotonic

from cryostore.client.transport import ConnectionFailedError
from cryostore.core.interrupts import is_requested, sleep
from cryostore.wire.message import Response

RETRYABLE_NAMES = frozenset({"NotReadableInputStreamException", "ThrottlingException"})
"""Retryable errors whose status may be 400. Status 429 and all 5xx are always retryable."""


def is_away(outcome: Response | ConnectionFailedError) -> bool:
    """Return whether the connection failed, or a load balancer without a ready node answered."""
    if isinstance(outcome, ConnectionFailedError):
        return outcome.retryable
    return outcome.status in (502, 503, 504) and not outcome.header("x-amzn-errortype")


def _silent(_: str) -> None:
    pass


class Outage:
    """The current outage of a client, if any, shared by all of its threads.

    Calls `say` with one line when the wait begins and when it ends. After a wait that failed, the client does not wait
    again until the server answers: clean-up requests fail at once. There is no lock, because Ctrl-C may interrupt a
    call at any instruction; two threads may therefore print a line twice.
    """

    def __init__(
        self, wait_seconds: float = 0.0, *, say: Callable[[str], None] = _silent, now: Callable[[], float] = monotonic
    ) -> None:
        self.wait_seconds = wait_seconds
        self._say = say
        self._now = now
        self._has_answered = False
        self._since: float | None = None
        self._is_told = False

    def note(self, outcome: Response | ConnectionFailedError) -> None:
        """Record the outcome of an attempt."""
        since, is_told = self._since, self._is_told
        if is_away(outcome):
            self._since = self._now() if since is None else since
            return
        self._has_answered, self._since, self._is_told = True, None, False
        if is_told and since is not None:
            self._say(f"the server answers again after {self._now() - since:.0f} s")

    def keeps_waiting(self, outcome: Response | ConnectionFailedError) -> bool:
        """Return whether to try again after the ordinary attempts. `outcome` is the last one, already recorded."""
        since = self._since
        if not self._has_answered or since is None or not is_away(outcome):
            return False
        if self._now() - since >= self.wait_seconds:
            return False
        if not self._is_told:
            self._is_told = True
            reason = f"status {outcome.status}" if isinstance(outcome, Response) else outcome.message
            self._say(f"the server is away ({reason}); waiting up to {self.wait_seconds:.0f} s")
        return True


def is_retryable(response: Response) -> bool:
    """Return whether the same request may succeed later."""
    if response.status == 429 or response.status >= 500:
        return True
    return response.status == 400 and response.header("x-amzn-errortype") in RETRYABLE_NAMES


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential backoff with full jitter: a random part of a limit that doubles, so that clients spread out.

    A Retry-After header in seconds is a lower limit, up to `delay_seconds_max`. `random` returns 0 .. 1.
    """

    attempts_max: int = 5
    delay_first_seconds: float = 0.5
    delay_seconds_max: float = 20.0
    random: Callable[[], float] = random.random
    sleep: Callable[[float], None] = sleep
    outage: Outage = field(default_factory=Outage)

    def run(self, attempt: Callable[[], Response]) -> Response:
        """Return the first answer that is not retryable, or the last one. Raises the last ConnectionFailedError.

        There are no further attempts after an interrupt. While the server is away, there are more attempts than
        `attempts_max`, as long as `outage` keeps waiting.
        """
        for number in count(1):
            at_least_seconds = 0.0
            try:
                response = attempt()
                self.outage.note(response)
                if not is_retryable(response) or self._is_last(number, response):
                    return response
                at_least_seconds = _retry_after_seconds(response)
            except ConnectionFailedError as error:
                self.outage.note(error)
                if not error.retryable or self._is_last(number, error):
                    raise
            self.sleep(self.delay_seconds(number, at_least_seconds))
        raise AssertionError("unreachable: count() does not end")

    def _is_last(self, number: int, outcome: Response | ConnectionFailedError) -> bool:
        return is_requested() or (number >= self.attempts_max and not self.outage.keeps_waiting(outcome))

    def delay_seconds(self, number: int, at_least_seconds: float = 0.0) -> float:
        """Return the delay after attempt `number`, counted from 1."""
        bound = min(self.delay_seconds_max, self.delay_first_seconds * 2.0 ** min(number - 1, 60))
        return min(self.delay_seconds_max, max(self.random() * bound, at_least_seconds))


def _retry_after_seconds(response: Response) -> float:
    text = response.header("retry-after") or ""
    return float(text) if text.isascii() and text.isdigit() else 0.0
