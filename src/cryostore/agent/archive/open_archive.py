"""Opening the archive of a recovery point, through a restore job that keeps the point alive.

Also sound copies: small files that are read from newer recovery points when the chunk that they share is damaged. If
one of the files of a chunk is gone when the chunk is damaged, no later run can upload the same chunk again. The next
backup stores the remaining files in new chunks, and a reader of an older recovery point finds them there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from functools import partial
from typing import Literal

from cryostore.agent.archive.chunks import CachedChunkPages, ChunkCache
from cryostore.agent.archive.reader import Archive
from cryostore.agent.archive.recovery_points import ROLE_ARN, RecoveryPoint, completion_seconds, list_points
from cryostore.agent.encryption.key_objects import read_archive_keys, require_fitting_key
from cryostore.agent.encryption.keyed_call import KeyedCall, key_for
from cryostore.agent.entry import CONTENT, NO_DIGEST
from cryostore.agent.errors import DAMAGE, ArchiveDamagedError
from cryostore.agent.header import content_name
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.client import pages
from cryostore.core.errors import CryostoreError, KeyUnavailableError
from cryostore.core.limits import MIB
from cryostore.model.errors import AccessDeniedException, ResourceNotFoundException
from cryostore.model.operation import Call
from cryostore.model.restore_jobs import CompleteRestoreJob, StartRestoreJob

NEWER_MAX = 3
"""At most this many newer recovery points are searched for sound copies of damaged files."""
CACHE_BYTES = 32 * MIB
FILES_MAX = 4_000_000
"""At most this many small files of a newer recovery point are indexed by digest, in about 160 MB."""


def _archive(call: Call, job_id: str, point: RecoveryPoint) -> Archive:
    """Open the archive that a restore job reads. Its key may be wrapped only in the newest archive of the resource."""
    try:
        archive = Archive(call, job_id)
    except KeyUnavailableError:
        if not isinstance(call, KeyedCall) or not _learn_keys(call, point):
            raise
        archive = Archive(call, job_id)
    if archive.sealing and not (point.resource_arn or "").endswith(f":{archive.sealing.head.resource}"):
        archive.close()
        raise ArchiveDamagedError("the store returned the archive of another resource")
    return archive


def _learn_keys(call: KeyedCall, point: RecoveryPoint) -> bool:
    """Read the keys of the resource's newest recovery point; return whether that is another point than this one."""
    points = [each for each in list_points(call, point.backup_vault_name) if each.resource_arn == point.resource_arn]
    newest = max(points, key=completion_seconds, default=point)
    if newest.recovery_point_arn == point.recovery_point_arn:
        return False
    with _restore_job(call, newest, "keys") as job_id:
        objects = {each.name: each for each in pages.objects(call, job_id)}
        if (key := require_fitting_key(objects, key_for(call, job_id, objects))) is not None:
            call.learned = read_archive_keys(call, job_id, objects, key, call.learned)
    return True


@contextmanager
def open_archive(call: Call, point: RecoveryPoint, purpose: str) -> Iterator[Archive]:
    """Open the archive of a recovery point for the duration of the context.

    A restore job keeps the recovery point alive meanwhile. Files with damaged chunks are read from newer recovery
    points if those have sound copies.
    """
    with _open_without_copies(call, point, purpose) as archive:
        archive.sound_copies = SoundCopies(archive, partial(_newer_archives, call, point))
        yield archive


@contextmanager
def _open_without_copies(call: Call, point: RecoveryPoint, purpose: str) -> Iterator[Archive]:
    with _restore_job(call, point, purpose) as job_id, closing(_archive(call, job_id, point)) as archive:
        yield archive


def _newer_archives(call: Call, point: RecoveryPoint) -> Iterator[AbstractContextManager[Archive]]:
    """Return up to NEWER_MAX archives of newer recovery points of the same resource, not opened yet, newest first."""
    points = [each for each in list_points(call, point.backup_vault_name) if each.resource_arn == point.resource_arn]
    newer = [each for each in points if completion_seconds(each) > completion_seconds(point)]
    for each in sorted(newer, key=completion_seconds, reverse=True)[:NEWER_MAX]:
        yield _open_without_copies(call, each, "copies")


@contextmanager
def _restore_job(call: Call, point: RecoveryPoint, purpose: str) -> Iterator[str]:
    """Keep a restore job open for the duration of the context; yield its id."""
    started = call.call(
        StartRestoreJob(
            recovery_point_arn=point.recovery_point_arn or "", metadata={"purpose": purpose}, iam_role_arn=ROLE_ARN
        )
    )
    job_id = started.restore_job_id or ""
    status: Literal["COMPLETED", "FAILED"] = "FAILED"
    try:
        yield job_id
        status = "COMPLETED"
    finally:
        with suppress(CryostoreError):
            call.call(CompleteRestoreJob(restore_job_id=job_id, status=status))


class SoundCopies:
    """Searches the archives of newer recovery points for small files by digest; opens them at the first search.

    `newer` returns a few archives, newest first, not opened yet. Thread safe. `close` closes the opened archives.
    """

    def __init__(self, archive: Archive, newer: Callable[[], Iterator[AbstractContextManager[Archive]]]) -> None:
        self._archive = archive
        self._newer = newer
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._opened: list[_NewerFiles] | None = None

    def find(self, digest: bytes, length: int) -> bytes | None:
        """Return the bytes of a small file, verified by digest; None if no newer recovery point has them."""
        with self._lock:
            if self._opened is None:
                self._opened = list(self._open())
            for each in self._opened:
                data = each.find(digest, length)
                if data is not None and self._archive.chunk_id(data)[:16] == digest:
                    return data
        return None

    def close(self) -> None:
        """Close the archives that were opened."""
        self._stack.close()

    def _open(self) -> Iterator[_NewerFiles]:
        for opening in self._newer():
            try:
                newer = _NewerFiles(self._stack.enter_context(opening), self._archive)
            except (*DAMAGE, AccessDeniedException, KeyUnavailableError, ResourceNotFoundException):
                continue  # without this archive, another may still have a copy
            self._stack.callback(newer.close)
            yield newer


class _NewerFiles:
    """The small files of a newer archive, except those in objects that it shares with the older archive."""

    def __init__(self, archive: Archive, older: Archive) -> None:
        self._archive = archive
        self._pages = CachedChunkPages(archive)
        self._cache = ChunkCache(CACHE_BYTES)
        self._table = DigestTable()
        ours, theirs = archive.object_checksums(), older.object_checksums()
        numbers = [each.number for each in archive.header.objects]
        shared = {number for number in numbers if _is_same(content_name(number), ours, theirs)}
        for block in archive.blocks():
            for number, chunk, offset, digest in CONTENT.iter_unpack(block.contents):
                if digest != NO_DIGEST and number not in shared and len(self._table) < FILES_MAX:
                    self._table.add(digest, number, chunk, offset)

    def find(self, digest: bytes, length: int) -> bytes | None:
        """Return the bytes of a small file, not verified yet."""
        place = self._table.find(digest)
        if place is None:
            return None
        chunk = next(self._pages.from_chunk(place.object_number, place.chunk), None)
        if chunk is None or chunk.index != place.chunk:
            return None
        try:
            data = memoryview(self._cache.get(self._archive, chunk))
        except DAMAGE:
            return None
        return bytes(data[place.offset : place.offset + length])

    def close(self) -> None:
        """End the threads."""
        self._cache.close()


def _is_same(name: str, ours: dict[str, bytes], theirs: dict[str, bytes]) -> bool:
    return name in ours and ours[name] == theirs.get(name)
