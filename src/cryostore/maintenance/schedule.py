"""When garbage is collected without being asked: by one server process at a time, in small portions of time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from cryostore.catalog import collections
from cryostore.core.digest import sha256
from cryostore.maintenance.collection import CollectionLostError, CollectionRunsError, Outcome, Progress
from cryostore.maintenance.gc import collect
from cryostore.service import Context

SECONDS_PER_ROUND = 5.0
JITTER_SHARE = 8
RETRY_SHARE = 12


class ScheduledCollection:
    """Collects garbage whenever `collection_period_ms` have passed since the last run, whoever made that.

    One thread at a time. What runs stops between two rounds; another process may take it over if they are far apart.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._steps: Iterator[Progress] | None = None
        self._not_before_ms = 0
        share_ms = max(context.settings.collection_period_ms // JITTER_SHARE, 1)
        self._jitter_ms = int.from_bytes(sha256(context.new_id().encode())[:8]) % share_ms

    def go_on(self, *, seconds: float = SECONDS_PER_ROUND) -> None:
        """Begin a run if one is due, and work on it for at most about so many seconds.

        What goes wrong is raised, and the run not begun again at once.
        """
        if self._steps is None:
            if not self._is_due():
                return
            self._steps = collect(self._context, Outcome())
        steps, self._steps = self._steps, None
        now_ms, end = self._context.clock(), time.monotonic() + seconds
        self._not_before_ms = now_ms + self._context.settings.collection_period_ms // RETRY_SHARE
        with contextlib.suppress(CollectionRunsError, CollectionLostError):  # another process does it
            for _ in steps:
                if time.monotonic() >= end:
                    self._steps = steps
                    break

    def _is_due(self) -> bool:
        if self._context.clock() < self._not_before_ms:
            return False
        state = self._context.database.read(collections.state)
        since_ms = self._context.clock() - state.finished_ms
        return (
            since_ms >= self._context.settings.collection_period_ms + self._jitter_ms or since_ms < 0
        )  # the clock went back
