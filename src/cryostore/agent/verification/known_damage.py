"""What the store knows to be damaged of a recovery point: chunks by object name and index."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from cryostore.agent.archive.recovery_points import RecoveryPoint
from cryostore.client import pages
from cryostore.model.chunks import ListDamagedChunks
from cryostore.model.errors import AccessDeniedException, InvalidRequestException, UnknownOperationException
from cryostore.model.operation import Call

NOT_SAID = (InvalidRequestException, UnknownOperationException, AccessDeniedException)
"""What a server answers that is older, or that does not let this caller ask."""
CHUNKS_MAX = 1_000_000
"""So many chunks are kept."""


@dataclass(slots=True)
class KnownDamage:
    """The damaged chunks of a recovery point. `is_known` is False if the store does not say."""

    is_known: bool = True
    count: int = 0
    _indexes: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def holds(self, object_name: str, index: int) -> bool:
        """Whether this chunk is damaged."""
        return object_name in self._indexes and index in self._indexes[object_name]

    def add(self, object_name: str, index: int | None) -> None:
        """Note a chunk, or with no index the metadata of an object."""
        self.count += 1
        if index is not None and self.count <= CHUNKS_MAX:
            self._indexes[object_name].add(index)


def fetch_known_damage(call: Call, point: RecoveryPoint) -> KnownDamage:
    """Ask the store what it knows. A server that is older, or does not let this caller ask, does not say."""
    damage = KnownDamage()
    try:
        for chunk in pages.items(call, _asked(point)):
            damage.add(chunk.object_name, chunk.chunk_index)
    except NOT_SAID:
        damage.is_known = False
    return damage


def is_damaged(call: Call, point: RecoveryPoint) -> bool | None:
    """Whether the store knows any chunk of a recovery point to be damaged; None if it does not say."""
    try:
        return any(True for _ in pages.items(call, _asked(point)))
    except NOT_SAID:
        return None


def _asked(point: RecoveryPoint) -> ListDamagedChunks:
    return ListDamagedChunks(
        backup_vault_name=point.backup_vault_name or "", recovery_point_arn=point.recovery_point_arn or ""
    )
