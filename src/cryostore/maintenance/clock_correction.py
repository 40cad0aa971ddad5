"""Stamps of a wrong clock, corrected before something is decided by them. Which ones: `catalog.queries.timestamps`."""

from __future__ import annotations

import logging
from functools import partial

from cryostore.catalog.queries import timestamps
from cryostore.service import Context

_log = logging.getLogger(__name__)


def correct_future_timestamps(context: Context) -> None:
    """Correct the stored moments that are later than now. May be repeated."""
    corrected = context.database.write(partial(timestamps.correct_future, now_ms=context.clock()))
    if corrected:
        _log.warning("%d stored moments lay in the future: a clock was wrong; corrected", corrected)
