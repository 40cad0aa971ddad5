"""Damage of a recovery point that the store knows: chunks by object name and index."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from cryostore.agent.archive.recovery_points import RecoveryPoint
from cryostore.client import pages
from cryostore.model.chunks import ListDamagedChunks
from cryostore.model.errors import AccessDeniedException, InvalidRequestException, UnknownOperationException
from cryostore.model.operation import Call

NOT_ANSWERED = (InvalidRequestException, UnknownOperationException, AccessDeniedException)
"""Answers of a server that is older, or that does not let this caller ask."""
CHUNKS_MAX = 1_000_000
"""At most this many chunks are kept."""


@dataclass(slots=True)
class KnownDamage:
    """The damaged chunks of a recovery point. `is_known` is False if the store does not answer."""

    is_known: bool = True
    count: int = 0
    _indexes: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def contains(self, object_name: str, index: int) -> bool:
        """Return whether this chunk is damaged."""
        return object_name in self._indexes and index in self._indexes[object_name]

    def add(self, object_name: str, index: int | None) -> None:
        """Note a chunk or, without an index, the metadata of an object."""
        self.count += 1
        if index is not None and self.count <= CHUNKS_MAX:
            self._indexes[object_name].add(index)


def fetch_known_damage(call: Call, point: RecoveryPoint) -> KnownDamage:
    """Ask the store for known damage. An older server, or one that refuses this caller, does not answer."""
    damage = KnownDamage()
    try:
        for chunk in pages.items(call, _request(point)):
            damage.add(chunk.object_name, chunk.chunk_index)
    except NOT_ANSWERED:
        damage.is_known = False
    return damage


def is_damaged(call: Call, point: RecoveryPoint) -> bool | None:
    """Return whether the store knows a damaged chunk of a recovery point; None if it does not answer."""
    try:
        return any(True for _ in pages.items(call, _request(point)))
    except NOT_ANSWERED:
        return None


def _request(point: RecoveryPoint) -> ListDamagedChunks:
    return ListDamagedChunks(
        backup_vault_name=point.backup_vault_name or "", recovery_point_arn=point.recovery_point_arn or ""
    )
