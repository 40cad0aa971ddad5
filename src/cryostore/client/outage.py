"""The outage of a server during a run: how long a client keeps trying, and what it says meanwhile.

A client that had an answer before waits for its server to come back, for example after a restart. A server that never
answered is not waited for: its address is probably wrong. Does not live here: the delays between attempts (`retry`).
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from cryostore.client.transport import ConnectionFailedError
from cryostore.wire.message import Response


def is_away(outcome: Response | ConnectionFailedError) -> bool:
    """Whether nobody answered for the server: the connection failed, or a load balancer without a ready node."""
    if isinstance(outcome, ConnectionFailedError):
        return outcome.retryable
    return outcome.status in (502, 503, 504) and not outcome.header("x-amzn-errortype")


def _silent(_: str) -> None:
    pass


class Outage:
    """The outage that a client is in, if any; one for all threads of the client.

    `say` is told in one line when the wait begins and when it ends. A wait that was in vain is not repeated until the
    server answers: what cleans up after it fails at once. There is no lock, because Ctrl-C may end a call at any
    instruction; two threads at once may say a line twice.
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
        """Take the outcome of an attempt into account."""
        since, is_told = self._since, self._is_told
        if is_away(outcome):
            self._since = self._now() if since is None else since
            return
        self._has_answered, self._since, self._is_told = True, None, False
        if is_told and since is not None:
            self._say(f"the server answers again after {self._now() - since:.0f} s")

    def goes_on(self, outcome: Response | ConnectionFailedError) -> bool:
        """Whether to try again although the ordinary attempts are used up. `outcome` is the last one, and noted."""
        since = self._since
        if not self._has_answered or since is None or not is_away(outcome):
            return False
        if self._now() - since >= self.wait_seconds:
            return False
        if not self._is_told:
            self._is_told = True
            reason = f"status {outcome.status}" if isinstance(outcome, Response) else outcome.message
            self._say(f"the server is away ({reason}); waiting for it, up to {self.wait_seconds:.0f} s")
        return True
