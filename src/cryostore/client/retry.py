"""When to repeat a request, and how long to wait before.

Every operation may be repeated (Backup Storage A.3): the same request carries the same token, checksum and content.
What a repetition can still show, when the first request was carried out and only its answer was lost:

- DeleteObject, DeleteBackupVault, DeleteRecoveryPoint: ResourceNotFoundException, since the thing is gone already.
- StartObject and PutObject with the throw flag: DataAlreadyExistsException with the checksum of what was just stored.
- StartObject: a second upload; the first stays open until the job ends, so commit with DiscardOpenUploads.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from cryostore.client.outage import Outage
from cryostore.client.transport import ConnectionFailedError
from cryostore.core.interrupts import sleep, told
from cryostore.wire.message import Response

RETRYABLE_NAMES = frozenset({"NotReadableInputStreamException", "ThrottlingException"})
"""Errors worth a repetition although their status may be 400; all of 429 and 5xx are worth one by their status."""


def is_retryable(response: Response) -> bool:
    """Whether the same request may fare better later."""
    if response.status == 429 or response.status >= 500:
        return True
    return response.status == 400 and response.header("x-amzn-errortype") in RETRYABLE_NAMES


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential backoff with full jitter: a random part of a bound that doubles, so that clients spread out.

    A Retry-After header in seconds is a lower bound, within `delay_seconds_max`. `random` answers 0 .. 1.
    """

    attempts_max: int = 5
    delay_first_seconds: float = 0.5
    delay_seconds_max: float = 20.0
    random: Callable[[], float] = random.random
    sleep: Callable[[float], None] = sleep
    outage: Outage = field(default_factory=Outage)

    def run(self, attempt: Callable[[], Response]) -> Response:
        """The first answer that is not worth a repetition, or the last; the last attempt's ConnectionFailedError.

        The last is the one during which the process was told to end. While the server is away, there are more
        attempts than `attempts_max`, as long as `outage` says so.
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
        return told() or (number >= self.attempts_max and not self.outage.goes_on(outcome))

    def delay_seconds(self, number: int, at_least_seconds: float = 0.0) -> float:
        """How long to wait after attempt `number`, counted from 1."""
        bound = min(self.delay_seconds_max, self.delay_first_seconds * 2.0 ** min(number - 1, 60))
        return min(self.delay_seconds_max, max(self.random() * bound, at_least_seconds))


def _retry_after_seconds(response: Response) -> float:
    text = response.header("retry-after") or ""
    return float(text) if text.isascii() and text.isdigit() else 0.0
