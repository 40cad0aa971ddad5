"""Progress of a long piece of work."""

from __future__ import annotations

from typing import NamedTuple


class Progress(NamedTuple):
    """How far a stage has come. `total` is None if it is not known."""

    stage: str
    done: int
    total: int | None = None

    @property
    def words(self) -> str:
        """The progress as text for people."""
        return f"{self.stage} {self.done}" + ("" if self.total is None else f" of {self.total}")
