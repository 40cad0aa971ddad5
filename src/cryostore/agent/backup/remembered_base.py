"""The base of a run that cannot read it: what the machine remembers of it, and the chunks that the store has."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable

from cryostore.agent.backup.incremental_base import Known, identity_of, retired
from cryostore.agent.backup.run_memory import CHUNK, RunMemory, load, save
from cryostore.agent.block import Block, Extra, ExtraKind, Kind
from cryostore.agent.encryption.cipher import KEY_ID_BYTES, derive, keyed_digest
from cryostore.agent.encryption.key_objects import PREFIX
from cryostore.agent.entry import CONTENT, NO_DIGEST, ROW, UNTRUSTED_CTIME, Content, Row
from cryostore.agent.header import CONTENT_PREFIX, ContentObject
from cryostore.agent.source.walk import join
from cryostore.agent.upload.digest_table import DigestTable

PATH_LABEL = b"cryostore agent remembered paths 1"
PATH_BYTES = 16
ENTRY = struct.Struct(f"<{PATH_BYTES}s{ROW.size}s{CONTENT.size}s")
CATALOG_NUMBER = 0


class RememberedBase:
    """As Base, of what was remembered. `summaries` are those of all objects the store's base has."""

    def __init__(
        self, path: str, point: str | None, summaries: dict[str, bytes], damaged: frozenset[int] = frozenset()
    ) -> None:
        self._path = path
        self._memory = load(path)
        self._summaries = summaries
        if not point or self._memory.point != point:  # another has written meanwhile: only the chunks are of use
            self._memory.objects = []
            self._memory.entries = b""
        self.identity = self._memory.identity
        self.objects: list[ContentObject] = self._memory.objects
        self.retired = retired(self.objects) | damaged
        self.damaged = damaged
        self._path_key = derive(self.identity, PATH_LABEL)
        self._places = DigestTable(PATH_BYTES)
        for index, (path_digest, _, _) in enumerate(ENTRY.iter_unpack(self._memory.entries)):
            self._places.add(path_digest, index)
        self._new_entries = bytearray()
        self._new_holes: dict[bytes, bytes] = {}
        opened_by = {key_id_in(name) for name in summaries if name.startswith(PREFIX)}
        self.chunks = RememberedChunks(self._memory, opened_by)

    @property
    def last_number(self) -> int:
        """The highest number that a content object of the store's base has."""
        names = [name.removeprefix(CONTENT_PREFIX) for name in self._summaries if name.startswith(CONTENT_PREFIX)]
        return max((int(name) for name in names if name.isascii() and name.isdigit()), default=0)

    def object_checksums(self) -> dict[str, bytes]:
        """See Archive."""
        return self._summaries

    def take(self, kind: Kind, path: bytes) -> list[Block]:  # noqa: ARG002 - no block is remembered as it was
        """See Base."""
        return []

    def usable(self, block: Block) -> bool:  # noqa: ARG002 - as above
        """See Base."""
        return False

    def load_small_files(self, table: DigestTable) -> None:
        """See Base."""
        for _, _, packed in ENTRY.iter_unpack(self._memory.entries):
            content = Content.unpack(packed)
            if content.digest != NO_DIGEST and content.object_number not in self.retired:
                table.add(content.digest, content.object_number, content.chunk, content.offset)

    def load_chunks(self, table: DigestTable) -> None:
        """See Base. Chunks are known by their identity here, before they are sealed."""

    def entries(self, path: bytes, blocks: list[Block]) -> RememberedEntries:  # noqa: ARG002 - there are none
        """See Base."""
        return RememberedEntries(self, path)

    def _digest(self, path: bytes) -> bytes:
        return keyed_digest(self._path_key, path)[:PATH_BYTES]

    def find(self, path: bytes) -> Known | None:
        """A file of the last run, without its attributes."""
        digest = self._digest(path)
        if (place := self._places.find(digest)) is None:
            return None
        _, row, content = ENTRY.unpack_from(self._memory.entries, place.object_number * ENTRY.size)
        held = self._memory.holes.get(digest)
        holes = [] if held is None else [Extra(ExtraKind.HOLES, held)]
        return Known(Row.unpack(row), Content.unpack(content), holes)

    def remember(self, path: bytes, known: Known) -> None:
        """Note a file for the next run."""
        if not known.row.is_file:
            return
        digest = self._digest(path)
        self._new_entries += ENTRY.pack(digest, known.row.pack(), known.content.pack())
        for extra in known.extras:
            if extra.kind == ExtraKind.HOLES:
                self._new_holes[digest] = extra.data

    def save(self, point: str, objects: list[ContentObject]) -> None:
        """Remember this run for the next one. Raises StorageUnavailableError."""
        self.chunks.keep({each.number for each in objects})
        memory = self._memory
        memory.point, memory.objects = point, objects
        memory.entries, memory.holes = bytes(self._new_entries), self._new_holes
        save(self._path, memory)


class RememberedEntries:
    """As Entries, for one directory."""

    def __init__(self, base: RememberedBase, directory: bytes) -> None:
        self._base = base
        self._directory = directory

    def unchanged(self, name: bytes, row: Row) -> Known | None:
        """See Entries."""
        known = self.held(name, row)
        return None if known is None or known.content.object_number in self._base.retired else known

    def held(self, name: bytes, row: Row) -> Known | None:
        """See Entries. For files alone: other entries cost little to read again."""
        if not row.is_file:
            return None
        known = self._base.find(join(self._directory, name))
        if known is None or known.row.ctime_ns == UNTRUSTED_CTIME or identity_of(known.row) != identity_of(row):
            return None
        return None if known.content.object_number in self._base.damaged else known

    def digest(self, name: bytes) -> bytes:
        """See Entries."""
        known = self._base.find(join(self._directory, name))
        return NO_DIGEST if known is None else known.content.digest

    def __contains__(self, name: bytes) -> bool:
        return self._base.find(join(self._directory, name)) is not None


class RememberedChunks:
    """The chunks of runs before, by identity: stored under other keys, and never opened again here. Thread safe."""

    def __init__(self, memory: RunMemory, opened_by: set[bytes]) -> None:
        """`opened_by` are the ids of the keys that lie with the base: what is under another, nobody could open."""
        self._memory = memory
        self._lock = threading.Lock()
        self._rows = bytearray(memory.chunks)
        self._places = DigestTable(32)
        usable = [key_id in opened_by for key_id in memory.keys]
        for index, (identity, _, _, key, _) in enumerate(CHUNK.iter_unpack(memory.chunks)):
            if key < len(usable) and usable[key]:
                self._places.add(identity, index)
        self._writers = {number: memory.keys[index] for number, index in memory.writers.items()}
        self._keys = list(memory.keys)

    def find(self, identity: bytes) -> tuple[bytes, int, bytes] | None:
        """Digest and length of the stored chunk with this identity, and the id of its key."""
        with self._lock:
            if (place := self._places.find(identity)) is None:
                return None
            _, digest, length, key, _ = CHUNK.unpack_from(self._rows, place.object_number * CHUNK.size)
        return digest, length, self._keys[key]

    def note(self, number: int, identity: bytes, digest: bytes, length: int, key_id: bytes) -> None:
        """Note a chunk of an object that this run writes."""
        with self._lock:
            if key_id not in self._keys:
                self._keys.append(key_id)
            self._places.add(identity, len(self._rows) // CHUNK.size)
            self._rows += CHUNK.pack(identity, digest, length, self._keys.index(key_id), number)

    def begin(self, number: int, key_id: bytes) -> None:
        """Note which key seals the table of an object."""
        with self._lock:
            if key_id not in self._keys:
                self._keys.append(key_id)
            self._writers[number] = key_id

    def used_keys(self, numbers: set[int]) -> set[bytes]:
        """The ids of the keys that some objects, and the catalog, cannot be opened without."""
        found = {self._writers[number] for number in (*numbers, CATALOG_NUMBER) if number in self._writers}
        return found | {self._keys[key] for _, _, _, key, _ in self._kept(numbers)}

    def _kept(self, numbers: set[int]) -> Iterable[tuple[bytes, bytes, int, int, int]]:
        with self._lock:
            rows = bytes(self._rows)
        for index, row in enumerate(CHUNK.iter_unpack(rows)):
            is_old = index * CHUNK.size < len(self._memory.chunks)
            if row[4] in numbers or (row[4] == CATALOG_NUMBER and not is_old):
                yield row

    def keep(self, numbers: set[int]) -> None:
        """Forget all but some objects and the catalog of this run."""
        used = sorted(self.used_keys(numbers))
        places = {self._keys.index(key_id): index for index, key_id in enumerate(used)}
        kept = [CHUNK.pack(*row[:3], places[row[3]], row[4]) for row in self._kept(numbers)]
        self._memory.keys = used
        self._memory.chunks = b"".join(kept)
        kept_numbers = (*numbers, CATALOG_NUMBER)
        writers = {number: key_id for number, key_id in self._writers.items() if number in kept_numbers}
        self._memory.writers = {number: used.index(key_id) for number, key_id in writers.items()}


def key_id_in(name: str) -> bytes:
    """The id of the archive key that a key object is for."""
    text = name.removeprefix(PREFIX)[: 2 * KEY_ID_BYTES]
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
