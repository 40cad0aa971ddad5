"""Reader of an archive: its header, listing and chunks, fetched through a storage job."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from typing import Protocol, TypeVar

from cryostore.agent.archive.block_order import ReportProblem, ignore_problem, with_missing_folders
from cryostore.agent.block import Block, decode, decode_readable
from cryostore.agent.encryption.key_objects import require_fitting_key
from cryostore.agent.encryption.keyed_call import key_for
from cryostore.agent.encryption.sealed_archive import SealedArchive
from cryostore.agent.entry import NO_DIGEST, Content
from cryostore.agent.errors import DAMAGE, ArchiveDamagedError
from cryostore.agent.header import CATALOG, Header, content_name
from cryostore.client import pages
from cryostore.core.digest import Buffer, Checksum, sha256
from cryostore.core.errors import CryostoreError
from cryostore.core.threads import Threads, task_result
from cryostore.model.chunks import Chunk, GetChunk, ListChunks
from cryostore.model.objects import BackupObject, GetObjectMetadata
from cryostore.model.operation import Call

AHEAD = 4
HEADER_BYTES_MAX = 4 * 1024 * 1024
Item = TypeVar("Item")
Result = TypeVar("Result")


class SmallFileCopies(Protocol):
    """Sound copies of small files; see `open_archive`."""

    def find(self, digest: bytes, length: int) -> bytes | None:
        """Return the bytes with this digest, or None."""

    def close(self) -> None:
        """Close everything that was opened."""


class Archive:
    """An archive, read through storage job `job_id`. Safe to use from several threads. `close` ends its threads.

    Raises ArchiveDamagedError if the objects of the job are not an archive.
    """

    def __init__(self, call: Call, job_id: str) -> None:
        self.call = call
        self.job_id = job_id
        self._objects: dict[str, BackupObject] = {item.name: item for item in pages.objects(call, job_id)}
        key = require_fitting_key(self._objects, key_for(call, job_id, self._objects))
        self.sealing = SealedArchive(call, job_id, self._objects, key) if key else None
        self.header_bytes = self.sealing.head.header if self.sealing else self._plain_header()
        self.header = Header.decode(self.header_bytes)
        if self.sealing:
            self.listing_chunks, self.stored_listing_chunks = self.sealing.listing_chunks(self.header)
        else:
            self.listing_chunks = self.stored_listing_chunks = list(self._listed(CATALOG))
        self._threads = Threads(AHEAD, "archive")
        self.sound_copies: SmallFileCopies | None = None
        """Where small files are looked for whose chunk is damaged."""

    def _plain_header(self) -> bytes:
        operation = GetObjectMetadata(storage_job_id=self.job_id, object_token=self._object(CATALOG).object_token)
        blob = self.call.call(operation).metadata_blob
        if blob is None:
            raise ArchiveDamagedError("the archive has no header")
        return bytes(blob.data)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()
        if self.sound_copies is not None:
            self.sound_copies.close()

    def sound_copy(self, content: Content, length: int) -> bytes | None:
        """Return a sound copy of a small file whose chunk is damaged; None if there is none."""
        if self.sound_copies is None or content.digest == NO_DIGEST:
            return None
        return self.sound_copies.find(content.digest, length)

    @property
    def object_names(self) -> list[str]:
        """The names of all its objects."""
        return list(self._objects)

    def object_checksums(self) -> dict[str, bytes]:
        """Return the checksum of each of its objects, by name."""
        return {name: Checksum.parse(each.object_checksum).digest for name, each in self._objects.items()}

    def _object(self, name: str) -> BackupObject:
        if (found := self._objects.get(name)) is None:
            raise ArchiveDamagedError(f"the archive has no object {name}")
        return found

    def blocks(self, report_problem: ReportProblem | None = None) -> Iterator[Block]:
        """Return all blocks of the listing in order, with missing folders filled in (see `block_order`).

        The next chunks are fetched meanwhile. With `report_problem`, damaged blocks are reported and all readable ones
        returned; then ArchiveDamagedError, or what the store raises, means that none is readable. Without it, the first
        damaged block raises.
        """
        if report_problem is None:
            return with_missing_folders(self._decoded(), ignore_problem)
        return with_missing_folders(self._readable(report_problem), report_problem)

    def _decoded(self) -> Iterator[Block]:
        for data in self.map_ahead(self.chunk_bytes, self.listing_chunks):
            yield from decode(data)

    def raw_blocks(self) -> Iterator[Block]:
        """Return all blocks as stored, with unchecked names: for callers that only compare names."""
        for data in self.map_ahead(self.chunk_bytes, self.listing_chunks):
            yield from decode(data, check_names=False)

    def _readable(self, report_problem: ReportProblem) -> Iterator[Block]:
        last: Block | None = None
        problem: CryostoreError | None = None
        for data in self.map_ahead(self._bytes_or_error, self.listing_chunks):
            for block in decode_readable(data) if isinstance(data, bytes) else (data,):
                if isinstance(block, CryostoreError):
                    problem = block
                    reason = f"the listing is damaged after this folder; the entries there are lost: {block.message}"
                    report_problem(last.path if last is not None else b"", reason)
                else:
                    last = block
                    yield block
        if last is None and problem is not None:
            raise problem

    def _bytes_or_error(self, chunk: Chunk) -> bytes | CryostoreError:
        """Return the bytes of a chunk, or the error if it is damaged."""
        try:
            return self.chunk_bytes(chunk)
        except DAMAGE as error:
            return error

    def map_ahead(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """Return the results of `work` in order; a few of them are computed ahead by the archive's threads."""
        under_way: deque[Future[Result]] = deque()
        try:
            for item in items:
                under_way.append(self._threads.submit(work, item))
                if len(under_way) >= AHEAD:
                    yield task_result(under_way.popleft())
            while under_way:
                yield task_result(under_way.popleft())
        finally:
            for future in under_way:
                future.cancel()

    def chunk_bytes(self, chunk: Chunk) -> bytes:
        """Return the bytes of a chunk, verified against its checksum."""
        data = self.chunk_buffer(chunk)
        return data if isinstance(data, bytes) else bytes(data)

    def chunk_buffer(self, chunk: Chunk) -> Buffer:
        """Return the bytes of a chunk, as `chunk_bytes` does, without copying the buffer that they came in."""
        payload = self.call.call(GetChunk(storage_job_id=self.job_id, chunk_token=chunk.chunk_token)).data
        if self.sealing:
            return self.sealing.open(chunk, payload.data)
        if len(payload) != chunk.length or payload.sha256 != digest_of(chunk):
            raise ArchiveDamagedError(f"chunk {chunk.index} does not match its checksum")
        return payload.data

    def content_pages(self, number: int, token: str | None = None) -> Iterator[tuple[list[Chunk], str | None]]:
        """Return the chunks of a content object page by page from `token` on, each with the token of the next page."""
        name = content_name(number)
        operation = ListChunks(
            storage_job_id=self.job_id, object_token=self._object(name).object_token, next_token=token
        )
        for page in pages.pages(self.call, operation):
            yield self._listed_pieces(name, page.chunk_list), page.next_token

    def _listed_pieces(self, name: str, stored: list[Chunk]) -> list[Chunk]:
        return self.sealing.shown(name, stored) if self.sealing else stored

    def _listed(self, name: str) -> Iterator[Chunk]:
        return pages.chunks(self.call, self.job_id, self._object(name).object_token)

    def object_chunks(self, name: str) -> Iterator[Chunk]:
        """Return the chunks of an object in ascending index order."""
        return iter(self._listed_pieces(name, list(self._listed(name)))) if self.sealing else self._listed(name)

    def stored_object_chunks(self, name: str) -> Iterator[Chunk]:
        """Return the chunks of an object as the store has them; of a sealed archive, not as its pieces."""
        return self._listed(name)

    def stored_chunks(self) -> Iterator[Chunk]:
        """Return all chunks of the listing and the content as the store has them."""
        yield from self.stored_listing_chunks
        for content in self.header.objects:
            yield from self._listed(content_name(content.number))

    def chunk_id(self, data: Buffer) -> bytes:
        """Return the digest that a listed chunk with these bytes has; in a sealed archive a keyed one."""
        return self.sealing.chunk_id(data) if self.sealing else sha256(data)

    def chunks_count(self, number: int) -> int:
        """Return how many chunks a content object has."""
        name = content_name(number)
        return len(self.sealing.table(name)) if self.sealing else self._object(name).chunks_count or 0


def digest_of(chunk: Chunk) -> bytes:
    """Return the digest of a listed chunk."""
    return Checksum.parse(chunk.checksum).digest
