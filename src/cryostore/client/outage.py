"""Outage of a server during a run: how long a client keeps retrying, and its messages meanwhile.

A client that has had an answer waits for its server to come back, for example after a restart. It does not wait for a
server that never answered: the address is probably wrong. The delays between attempts are in `retry`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from cryostore.client.transport import ConnectionFailedError
from cryostore.wire.message import Response


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
