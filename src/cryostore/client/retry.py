"""Retry policy: which requests to repeat, and the delay before each attempt.

Every operation may be repeated (Backup Storage A.3): the same request carries the same token, checksum and content. If
the first request succeeded and only its answer was lost, a repetition may have one of these effects:

- DeleteObject, DeleteBackupVault, DeleteRecoveryPoint: ResourceNotFoundException, because it is already deleted.
- StartObject and PutObject with the throw flag: DataAlreadyExistsException with the checksum of the data just stored.
- StartObject: a second upload. The first stays open until the job ends, so commit with DiscardOpenUploads.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from cryostore.client.outage import Outage
from cryostore.client.transport import ConnectionFailedError
from cryostore.core.interrupts import is_requested, sleep
from cryostore.wire.message import Response

RETRYABLE_NAMES = frozenset({"NotReadableInputStreamException", "ThrottlingException"})
"""Retryable errors whose status may be 400. Status 429 and all 5xx are always retryable."""


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
