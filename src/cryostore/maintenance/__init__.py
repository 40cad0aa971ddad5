"""What happens with time: windows that close, jobs that fall silent, rows nobody needs any more.

Every duty is safe at any moment, from any process, any number of times; none removes what somebody may still see.
"""

from __future__ import annotations

from cryostore.maintenance.background_tasks.run import maintain
from cryostore.maintenance.schedule import ScheduledGarbageCollection, ScheduledScrub, ScheduledTasks

__all__ = ["ScheduledGarbageCollection", "ScheduledScrub", "ScheduledTasks", "maintain"]
