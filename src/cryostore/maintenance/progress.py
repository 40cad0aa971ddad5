"""Progress of long background work."""

from __future__ import annotations

from typing import NamedTuple


class Progress(NamedTuple):
    """How far a stage is. `total` is None where nobody knows it."""

    stage: str
    done: int
    total: int | None = None

    @property
    def words(self) -> str:
        """The same for people."""
        return f"{self.stage} {self.done}" + ("" if self.total is None else f" of {self.total}")
