"""What a run did, as it is counted: for the summary, the progress shown meanwhile, and the exit code."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

ISSUES_KEPT_MAX = 1000


@dataclass(frozen=True, slots=True)
class Issue:
    """Something that could not be done, and why."""

    path: bytes
    reason: str


@dataclass(slots=True)
class Report:
    """Counts of one run. Written by the run alone, read by whoever shows it."""

    entries: int = 0
    files: int = 0
    directories: int = 0
    file_bytes: int = 0
    """Of all files looked at."""
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    read_bytes: int = 0
    """What was really read: no holes, and twice what had to be read again."""
    sent_bytes: int = 0
    """What the store did not have yet, the catalog included."""
    new_bytes: int = 0
    """Of the files that a restore wrote."""
    done_bytes: int = 0
    """How far a run is that goes through files of `total_bytes`: grows while a large one lasts."""
    deleted: int = 0
    damaged_objects: int = 0
    """Objects of the base that the store has lost bytes of; what is in them was read again."""
    skipped: Counter[str] = field(default_factory=Counter)
    """What was left out on purpose, by reason."""
    issue_count: int = 0
    issues: list[Issue] = field(default_factory=list)
    """The first of them."""
    current: bytes = b""
    total_bytes: int | None = None

    def issue(self, path: bytes, reason: str) -> None:
        """Count an issue."""
        self.issue_count += 1
        if len(self.issues) < ISSUES_KEPT_MAX:
            self.issues.append(Issue(path, reason))
