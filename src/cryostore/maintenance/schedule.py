"""Schedule of the background work of a server: background tasks, garbage collection and scrubbing.

Every process of a store asks each schedule from time to time. A claim decides which process does the work (`claims`).
Long work is done in portions of a few seconds.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from functools import partial

from cryostore.catalog.processes import claims
from cryostore.catalog.processes.claims import ClaimHeldError, ClaimLostError, ClaimRow
from cryostore.core.digest import sha256
from cryostore.core.time import SECOND_MS
from cryostore.maintenance import background_tasks
from cryostore.maintenance.claims import BACKGROUND_TASKS, GARBAGE_COLLECTION, SCRUB, is_free
from cryostore.maintenance.garbage_collection.collect import collect
from cryostore.maintenance.garbage_collection.run import CollectionResult
from cryostore.maintenance.progress import Progress
from cryostore.maintenance.verification import scrub
from cryostore.maintenance.verification.scrub import ScrubResult
from cryostore.service import Context, Service

SECONDS_PER_ROUND = 5.0
JITTER_SHARE = 8
RETRY_SHARE = 12
PASSES_PER_PERIOD = 30
"""A scrub period has so many passes. Each verifies the packs that would be overdue before the next pass."""
_log = logging.getLogger(__name__)


class ScheduledTasks:
    """Runs the background tasks of the store, unless another process of the store runs them.

    Another process runs them if a round has finished since this process last looked. So one process runs all rounds, at
    its own pace; if it dies, or its rounds fail, the next process that looks takes over. The per-process tasks run in
    every process.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._seen_ms = self._finished_ms()

    def run_if_due(self) -> None:
        """Run the tasks that are due. Raises as `background_tasks.maintain` does."""
        others = self._finished_ms() != self._seen_ms
        try:
            background_tasks.maintain(self._service, others=others)
        finally:
            self._seen_ms = self._finished_ms()

    def _finished_ms(self) -> int:
        return _row(self._service.context, BACKGROUND_TASKS).finished_ms


class ScheduledGarbageCollection:
    """Collects garbage when `collection_period_ms` have passed since the last run of any process.

    One thread at a time may use it. A run pauses between two calls; if they are far apart, another process may take the
    work over.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._steps: Iterator[Progress] | None = None
        self._tried_ms: int | None = None
        self._retry_ms = context.settings.collection_period_ms // RETRY_SHARE
        share_ms = max(context.settings.collection_period_ms // JITTER_SHARE, 1)
        self._jitter_ms = int.from_bytes(sha256(context.new_id().encode())[:8]) % share_ms

    def run_if_due(self, *, seconds: float = SECONDS_PER_ROUND) -> None:
        """Start a run if one is due, or continue the current one, for about `seconds` at most.

        Errors are raised; the run is then not started again at once.
        """
        if self._steps is None:
            if not self._is_due():
                return
            self._steps = collect(self._context, CollectionResult())
        steps, self._steps = self._steps, None
        now_ms, end = self._context.clock(), time.monotonic() + seconds
        self._tried_ms = now_ms
        with contextlib.suppress(ClaimHeldError, ClaimLostError):  # another process does the work
            for _ in steps:
                if time.monotonic() >= end:
                    self._steps = steps
                    break

    def _is_due(self) -> bool:
        now_ms = self._context.clock()
        if self._tried_ms is not None and 0 <= now_ms - self._tried_ms < self._retry_ms:
            return False
        row = _row(self._context, GARBAGE_COLLECTION)
        since_ms = now_ms - row.finished_ms
        is_time = since_ms >= self._context.settings.collection_period_ms + self._jitter_ms
        return is_free(self._context, row) and (is_time or since_ms < 0)  # the clock was set back


class ScheduledScrub:
    """Verifies packs so that each is read about once in `scrub_period_ms`, and a new one soon after it was written.

    One thread at a time may use it. The processes of a store share one pass: each continues where another stopped.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._period_ms = context.settings.scrub_period_ms
        self._pass_ms = max(self._period_ms // PASSES_PER_PERIOD, 1)
        self._failed_ms: int | None = None

    def run_if_due(self, *, seconds: float = SECONDS_PER_ROUND) -> ScrubResult | None:
        """Continue the pass for about `seconds`, if one is due or in progress. Returns None if none is.

        Between two portions of any processes there is a pause of the same length, in which a manual scrub can claim the
        work. Damage is logged. Errors of the scrub itself are raised; this process then does not retry at once.
        """
        now_ms = self._context.clock()
        if not self._period_ms or not self._is_due(now_ms, rest_ms=round(seconds * SECOND_MS)):
            return None
        outcome = ScrubResult()
        before_ms = now_ms - self._period_ms + self._pass_ms
        try:
            scrub.continue_pass(self._context, outcome, before_ms=before_ms, seconds=seconds)
        except (ClaimHeldError, ClaimLostError):
            pass  # another process does the work
        except Exception:
            self._failed_ms = now_ms
            raise
        finally:
            _log_damage(outcome)
        return outcome

    def _is_due(self, now_ms: int, *, rest_ms: int) -> bool:
        if self._failed_ms is not None and 0 <= now_ms - self._failed_ms < self._pass_ms // RETRY_SHARE:
            return False
        row = _row(self._context, SCRUB)
        rests = 0 <= now_ms - row.until_ms < rest_ms
        is_under_way = bool(row.place) or not 0 <= now_ms - row.finished_ms < self._pass_ms
        return is_under_way and not rests and is_free(self._context, row)


def _row(context: Context, work: str) -> ClaimRow:
    return context.database.read(partial(claims.find, work=work))


def _log_damage(outcome: ScrubResult) -> None:
    """Log the damage that was found."""
    found = (outcome.damaged, outcome.packs_missing, outcome.no_key, outcome.unreadable)
    if any(found):
        _log.error(
            "scrub: %d chunks found damaged, %d packs missing, %d chunks without their key, %d chunks unreadable:"
            " `cryo scrub` names the affected recovery points",
            *found,
        )
