"""Incremental base of a write-only run, which cannot read its base: the local state of the machine stands in for it.

The state is a file that is kept from one run to the next. Without it, each run would read and send everything again. It
holds keyed digests, stat data, and the digests of stored chunks, but no name or content of a file, and it opens no
archive. A person who has this file can tell whether a file that they have was backed up, by its path or by its content.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256

import msgspec

from cryostore.agent.backup.incremental_base import ArchivedEntry, objects_to_rewrite, stat_identity
from cryostore.agent.backup.job import OpenJob, summaries
from cryostore.agent.block import Block, Extra, ExtraKind, Kind
from cryostore.agent.encryption.agent_key import AgentKey
from cryostore.agent.encryption.cipher import KEY_ID_BYTES, SECRET_BYTES, derive, keyed_digest, random_bytes
from cryostore.agent.encryption.key_objects import PREFIX
from cryostore.agent.encryption.keyed_call import KeyedCall
from cryostore.agent.entry import CONTENT, NO_DIGEST, ROW, UNTRUSTED_CTIME, Content, Row
from cryostore.agent.header import CONTENT_PREFIX, ContentObject
from cryostore.agent.source.walk import join
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.core.digest import DIGEST_BYTES
from cryostore.core.errors import ConfigurationError, StorageUnavailableError
from cryostore.model.operation import Call

PATH_LABEL = b"cryostore agent remembered paths 1"
PATH_BYTES = 16
ENTRY = struct.Struct(f"<{PATH_BYTES}s{ROW.size}s{CONTENT.size}s")
FORMAT = 1
CHUNK = struct.Struct("<32s32sIII")
"""identity, stored digest, stored bytes, number of the key, number of the object (0: the listing)"""
LISTING_NUMBER = 0


class WriteOnlyState(msgspec.Struct, kw_only=True):
    """The state after the last run. `entries` and `chunks` are packed; tables: docs/reference/archive.md."""

    format: int = FORMAT
    identity: bytes
    """The secret from which the ids of pieces and paths are derived. No secret of a chunk is derived from it."""
    point: str = ""
    """The recovery point of the run. If the base is another one, only the chunks are of use."""
    objects: list[ContentObject] = []
    keys: list[bytes] = []
    """Ids of the archive keys of the runs whose chunks are still used."""
    writers: dict[int, int] = {}
    """By number of an object: the number of the key that sealed its table."""
    chunks: bytes = b""
    entries: bytes = b""
    holes: dict[bytes, bytes] = {}

    @classmethod
    def fresh(cls) -> WriteOnlyState:
        """Return the state of a machine that has not made a backup yet."""
        return cls(identity=random_bytes(SECRET_BYTES))


def state_path(folder: str, vault: str, resource: str) -> str:
    """Return the path of the state file of a resource."""
    name = sha256(vault.encode() + b"\0" + resource.encode()).hexdigest()
    return os.path.join(folder, f"{name}.memory")


def load_state(path: str) -> WriteOnlyState:
    """Read a state file. Returns a fresh state, so that everything is read again, if it is missing or unusable.

    A file is unusable if it is damaged or of a later format.
    """
    with suppress(OSError, msgspec.DecodeError, ValueError):
        with open(path, "rb") as file:
            state = msgspec.msgpack.decode(file.read(), type=WriteOnlyState)
        if state.format == FORMAT and len(state.identity) == SECRET_BYTES and len(state.chunks) % CHUNK.size == 0:
            return state
    return WriteOnlyState.fresh()


def save_state(path: str, state: WriteOnlyState) -> None:
    """Replace a state file atomically. Raises StorageUnavailableError; then the old file is still there."""
    staged = f"{path}.new"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            os.unlink(staged)
        fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            file.write(msgspec.msgpack.encode(state))
            file.flush()
            os.fsync(fd)
        os.rename(staged, path)
    except OSError as error:
        raise StorageUnavailableError(
            f"cannot write the state for the next run to {path}: {error.strerror}",
            hint="the next run reads everything again",
        ) from error


class StoredChunks:
    """The chunks that earlier runs stored, by identity. Thread safe.

    They are sealed under keys of those runs, and this machine never opens them again.
    """

    def __init__(self, state: WriteOnlyState, opened_by: set[bytes]) -> None:
        """`opened_by` are the ids of the keys stored with the base. Chunks under any other key are unrecoverable."""
        self._state = state
        self._lock = threading.Lock()
        self._rows = bytearray(state.chunks)
        self._places = DigestTable(DIGEST_BYTES)
        usable = [key_id in opened_by for key_id in state.keys]
        for index, (identity, _, _, key, _) in enumerate(CHUNK.iter_unpack(state.chunks)):
            if key < len(usable) and usable[key]:
                self._places.add(identity, index)
        self._writers = {number: state.keys[index] for number, index in state.writers.items()}
        self._keys = list(state.keys)

    def find(self, identity: bytes) -> tuple[bytes, int, bytes] | None:
        """Return digest and length of the stored chunk with this identity, and the id of its key."""
        with self._lock:
            if (place := self._places.find(identity)) is None:
                return None
            _, digest, length, key, _ = CHUNK.unpack_from(self._rows, place.object_number * CHUNK.size)
        return digest, length, self._keys[key]

    def add(self, number: int, identity: bytes, digest: bytes, length: int, key_id: bytes) -> None:
        """Add a chunk of object `number`, which this run writes."""
        with self._lock:
            if key_id not in self._keys:
                self._keys.append(key_id)
            self._places.add(identity, len(self._rows) // CHUNK.size)
            self._rows += CHUNK.pack(identity, digest, length, self._keys.index(key_id), number)

    def set_table_key(self, number: int, key_id: bytes) -> None:
        """Record which key seals the table of object `number`."""
        with self._lock:
            if key_id not in self._keys:
                self._keys.append(key_id)
            self._writers[number] = key_id

    def used_keys(self, numbers: set[int]) -> set[bytes]:
        """Return the ids of the keys needed to open the objects `numbers` and the listing."""
        found = {self._writers[number] for number in (*numbers, LISTING_NUMBER) if number in self._writers}
        return found | {self._keys[key] for _, _, _, key, _ in self._kept(numbers)}

    def _kept(self, numbers: set[int]) -> Iterable[tuple[bytes, bytes, int, int, int]]:
        with self._lock:
            rows = bytes(self._rows)
        for index, row in enumerate(CHUNK.iter_unpack(rows)):
            is_old = index * CHUNK.size < len(self._state.chunks)
            if row[4] in numbers or (row[4] == LISTING_NUMBER and not is_old):
                yield row

    def prune(self, numbers: set[int]) -> None:
        """Keep in the state only the chunks of the objects `numbers` and of the listing of this run."""
        used = sorted(self.used_keys(numbers))
        places = {self._keys.index(key_id): index for index, key_id in enumerate(used)}
        kept = [CHUNK.pack(*row[:3], places[row[3]], row[4]) for row in self._kept(numbers)]
        self._state.keys = used
        self._state.chunks = b"".join(kept)
        kept_numbers = (*numbers, LISTING_NUMBER)
        writers = {number: key_id for number, key_id in self._writers.items() if number in kept_numbers}
        self._state.writers = {number: used.index(key_id) for number, key_id in writers.items()}


def key_id_in(name: str) -> bytes:
    """Return the id of the archive key in the name of a key object; empty if it has none."""
    text = name.removeprefix(PREFIX)[: 2 * KEY_ID_BYTES]
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


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


def open_write_only_base(call: Call, job: OpenJob, vault: str, resource: str) -> WriteOnlyBase | None:
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
