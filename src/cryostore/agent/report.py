"""Report of a run: its counters and issues, for the summary, the progress line and the exit code."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

ISSUES_KEPT_MAX = 1000


@dataclass(frozen=True, slots=True)
class Issue:
    """An entry that a run could not handle, and why."""

    path: bytes
    reason: str


@dataclass(slots=True)
class Report:
    """Counters of one run. Only the run writes them; the progress display reads them meanwhile."""

    entries: int = 0
    files: int = 0
    directories: int = 0
    file_bytes: int = 0
    """The bytes of all files that the run looked at."""
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    read_bytes: int = 0
    """The bytes that were read: without holes, and twice if they were read again."""
    sent_bytes: int = 0
    """The bytes that the store lacked, those of the listing included."""
    new_bytes: int = 0
    """The bytes of files that a restore wrote."""
    done_bytes: int = 0
    """The progress of a run over files of `total_bytes`. It grows within a large file too."""
    deleted: int = 0
    damaged_objects: int = 0
    """Objects of the base that the store lost bytes of. The run read their files again."""
    skipped: Counter[str] = field(default_factory=Counter)
    """The number of entries left out on purpose, by reason."""
    issue_count: int = 0
    issues: list[Issue] = field(default_factory=list)
    """The first ISSUES_KEPT_MAX issues."""
    current: bytes = b""
    total_bytes: int | None = None

    def issue(self, path: bytes, reason: str) -> None:
        """Count an issue, and keep it if it is one of the first."""
        self.issue_count += 1
        if len(self.issues) < ISSUES_KEPT_MAX:
            self.issues.append(Issue(path, reason))
