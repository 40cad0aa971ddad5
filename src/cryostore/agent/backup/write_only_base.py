"""Incremental base of a write-only run, which cannot read its base: the files as the local state has them."""

from __future__ import annotations

import struct

from cryostore.agent.backup.incremental_base import ArchivedEntry, stat_identity
from cryostore.agent.backup.job import BackupJob, summaries
from cryostore.agent.backup.rewriting import objects_to_rewrite
from cryostore.agent.backup.write_only_state import StoredChunks, key_id_in, load_state, save_state, state_path
from cryostore.agent.block import Block, Extra, ExtraKind, Kind
from cryostore.agent.encryption.agent_key import AgentKey
from cryostore.agent.encryption.cipher import derive, keyed_digest
from cryostore.agent.encryption.key_objects import PREFIX
from cryostore.agent.encryption.keyed_call import KeyedCall
from cryostore.agent.entry import CONTENT, NO_DIGEST, ROW, UNTRUSTED_CTIME, Content, Row
from cryostore.agent.header import CONTENT_PREFIX, ContentObject
from cryostore.agent.source.walk import join
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.core.errors import ConfigurationError
from cryostore.model.operation import Call

PATH_LABEL = b"cryostore agent remembered paths 1"
PATH_BYTES = 16
ENTRY = struct.Struct(f"<{PATH_BYTES}s{ROW.size}s{CONTENT.size}s")


class WriteOnlyBase:
    """Base of a write-only run; same interface as ArchiveBase. `objects_of_base` are the checksums of its objects."""

    def __init__(
        self, path: str, point: str | None, objects_of_base: dict[str, bytes], damaged: frozenset[int] = frozenset()
    ) -> None:
        self._path = path
        self._state = load_state(path)
        self._summaries = objects_of_base
        if not point or self._state.point != point:  # another machine has written since: only the chunks are of use
            self._state.objects = []
            self._state.entries = b""
        self.identity = self._state.identity
        self.objects: list[ContentObject] = self._state.objects
        self.to_rewrite = objects_to_rewrite(self.objects) | damaged
        self.damaged = damaged
        self._path_key = derive(self.identity, PATH_LABEL)
        self._places = DigestTable(PATH_BYTES)
        for index, (path_digest, _, _) in enumerate(ENTRY.iter_unpack(self._state.entries)):
            self._places.add(path_digest, index)
        self._new_entries = bytearray()
        self._new_holes: dict[bytes, bytes] = {}
        opened_by = {key_id_in(name) for name in objects_of_base if name.startswith(PREFIX)}
        self.chunks = StoredChunks(self._state, opened_by)

    @property
    def last_number(self) -> int:
        """The highest number of a content object of the base."""
        names = [name.removeprefix(CONTENT_PREFIX) for name in self._summaries if name.startswith(CONTENT_PREFIX)]
        return max((int(name) for name in names if name.isascii() and name.isdigit()), default=0)

    def object_checksums(self) -> dict[str, bytes]:
        """See ArchiveBase."""
        return self._summaries

    def take(self, kind: Kind, path: bytes) -> list[Block]:  # noqa: ARG002 - the state holds no blocks
        """See ArchiveBase."""
        return []

    def usable(self, block: Block) -> bool:  # noqa: ARG002 - as above
        """See ArchiveBase."""
        return False

    def load_small_files(self, table: DigestTable) -> None:
        """See ArchiveBase."""
        for _, _, packed in ENTRY.iter_unpack(self._state.entries):
            content = Content.unpack(packed)
            if content.digest != NO_DIGEST and content.object_number not in self.to_rewrite:
                table.add(content.digest, content.object_number, content.chunk, content.offset)

    def load_chunks(self, table: DigestTable) -> None:
        """See ArchiveBase. Adds nothing: StoredChunks finds chunks by their identity, before they are sealed."""

    def entries(self, path: bytes, blocks: list[Block]) -> WriteOnlyEntries:  # noqa: ARG002 - there are none
        """See ArchiveBase."""
        return WriteOnlyEntries(self, path)

    def _digest(self, path: bytes) -> bytes:
        return keyed_digest(self._path_key, path)[:PATH_BYTES]

    def find(self, path: bytes) -> ArchivedEntry | None:
        """Return a file as the last run stored it, without its attributes."""
        digest = self._digest(path)
        if (place := self._places.find(digest)) is None:
            return None
        _, row, content = ENTRY.unpack_from(self._state.entries, place.object_number * ENTRY.size)
        held = self._state.holes.get(digest)
        holes = [] if held is None else [Extra(ExtraKind.HOLES, held)]
        return ArchivedEntry(Row.unpack(row), Content.unpack(content), holes)

    def remember(self, path: bytes, entry: ArchivedEntry) -> None:
        """Keep a file for the next run; any other entry is ignored."""
        if not entry.row.is_file:
            return
        digest = self._digest(path)
        self._new_entries += ENTRY.pack(digest, entry.row.pack(), entry.content.pack())
        for extra in entry.extras:
            if extra.kind == ExtraKind.HOLES:
                self._new_holes[digest] = extra.data

    def save(self, point: str, objects: list[ContentObject]) -> None:
        """Save the state for the next run. Raises StorageUnavailableError."""
        self.chunks.prune({each.number for each in objects})
        state = self._state
        state.point, state.objects = point, objects
        state.entries, state.holes = bytes(self._new_entries), self._new_holes
        save_state(self._path, state)


class WriteOnlyEntries:
    """The entries of one directory; same interface as BaseEntries."""

    def __init__(self, base: WriteOnlyBase, directory: bytes) -> None:
        self._base = base
        self._directory = directory

    def unchanged(self, name: bytes, row: Row) -> ArchivedEntry | None:
        """See BaseEntries."""
        known = self.held(name, row)
        return None if known is None or known.content.object_number in self._base.to_rewrite else known

    def held(self, name: bytes, row: Row) -> ArchivedEntry | None:
        """See BaseEntries. Finds only files: other entries cost little to read again."""
        if not row.is_file:
            return None
        known = self._base.find(join(self._directory, name))
        if known is None or known.row.ctime_ns == UNTRUSTED_CTIME or stat_identity(known.row) != stat_identity(row):
            return None
        return None if known.content.object_number in self._base.damaged else known

    def digest(self, name: bytes) -> bytes:
        """See BaseEntries."""
        known = self._base.find(join(self._directory, name))
        return NO_DIGEST if known is None else known.content.digest

    def __contains__(self, name: bytes) -> bool:
        return self._base.find(join(self._directory, name)) is not None


def open_write_only_base(call: Call, job: BackupJob, vault: str, resource: str) -> WriteOnlyBase | None:
    """Return the base of a run that cannot read it; None for a run that can.

    Raises ConfigurationError if there is no folder for the state.
    """
    if not isinstance(call, KeyedCall) or call.key is None or isinstance(call.key, AgentKey):
        return None
    if not call.memory_folder:
        raise ConfigurationError(
            "a write-only key needs a folder for the state between runs, and there is none",
            hint="set XDG_STATE_HOME or HOME",
        )
    old = summaries(call, job.base.storage_job_id) if job.base.storage_job_id else {}
    path = state_path(call.memory_folder, vault, resource)
    return WriteOnlyBase(path, job.base.base_recovery_point_arn, old, job.damaged_numbers)
