"""Correction of timestamps that lie in the future because a clock was wrong.

It runs before anything is decided by stored timestamps. `catalog.queries.timestamps` lists the affected columns.
"""

from __future__ import annotations

import logging
from functools import partial

from cryostore.catalog.queries import timestamps
from cryostore.service import Context

_log = logging.getLogger(__name__)


def correct_future_timestamps(context: Context) -> None:
    """Set stored timestamps that are later than now to now. May be repeated."""
    corrected = context.database.write(partial(timestamps.correct_future, now_ms=context.clock()))
    if corrected:
        _log.warning("corrected %d stored timestamps that were in the future: a clock was wrong", corrected)
