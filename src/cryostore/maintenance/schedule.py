"""When garbage is collected and packs are verified without being asked: in small portions of time."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from cryostore.catalog import collections
from cryostore.core.digest import sha256
from cryostore.maintenance.collection import CollectionLostError, CollectionRunsError, Outcome, Progress
from cryostore.maintenance.gc import collect
from cryostore.maintenance.scrub import Scrubbed, scrub
from cryostore.service import Context

SECONDS_PER_ROUND = 5.0
JITTER_SHARE = 8
RETRY_SHARE = 12
PASSES_PER_PERIOD = 30
"""A scrub's period has so many passes: each verifies what would be overdue before the next, new packs first."""
_log = logging.getLogger(__name__)


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


class ScheduledScrub:
    """Verifies packs so that each is read about once in `scrub_period_ms`, and each new one soon after it was written.

    One thread at a time. Several processes may do this: each leaves out what another has verified since its pass began.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._period_ms = context.settings.scrub_period_ms
        self._pass_ms = max(self._period_ms // PASSES_PER_PERIOD, 1)
        self._steps: Iterator[Progress] | None = None
        self._outcome = Scrubbed()
        # The processes of one server do not begin together.
        self._not_before_ms = context.clock() + int.from_bytes(sha256(context.new_id().encode())[:8]) % self._pass_ms

    def go_on(self, *, seconds: float = SECONDS_PER_ROUND) -> Scrubbed | None:
        """Begin a pass if one is due, and work on it for at most about so many seconds.

        Answers what a pass found when it has come to its end. What is wrong is logged as soon as it is found. What goes
        wrong in itself is raised, and the pass not begun again at once.
        """
        now_ms, end = self._context.clock(), time.monotonic() + seconds
        steps, self._steps = self._steps, None
        if steps is None:
            ahead_ms = self._not_before_ms - now_ms
            if not self._period_ms or 0 < ahead_ms <= self._pass_ms:  # further ahead: the clock went back
                return None
            self._not_before_ms, self._outcome = now_ms + self._pass_ms, Scrubbed()
            before_ms = now_ms - self._period_ms + self._pass_ms
            steps = scrub(self._context, self._outcome, verified_before_ms=before_ms)
        before = self._trouble()
        for _ in steps:
            if time.monotonic() >= end:
                self._steps = steps
                break
        self._say(before)
        return self._outcome if self._steps is None else None

    def _trouble(self) -> tuple[int, int, int, int]:
        outcome = self._outcome
        return outcome.damaged, outcome.packs_missing, outcome.no_key, outcome.unreadable

    def _say(self, before: tuple[int, int, int, int]) -> None:
        """Log what is wrong that was not before."""
        new = [now - then for now, then in zip(self._trouble(), before, strict=True)]
        if any(new):
            _log.error(
                "scrub: %d chunks found damaged, %d packs missing, %d chunks without their key, %d that cannot be read:"
                " `cryo scrub` names what is hurt",
                *new,
            )
