"""An archive as a reader has it: its header, its blocks, its chunks, through a storage job."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from typing import Protocol, TypeVar

from cryostore.agent.archive.missing_folders import ReportProblem, ignore_problem, with_missing_folders
from cryostore.agent.block import Block, decode, decode_readable
from cryostore.agent.encryption.key_objects import require_fitting_key
from cryostore.agent.encryption.locked_key import key_for
from cryostore.agent.encryption.sealed_archive import SealedArchive
from cryostore.agent.entry import NO_DIGEST, Content
from cryostore.agent.errors import DAMAGE, ArchiveDamagedError
from cryostore.agent.header import CATALOG, Header, content_name
from cryostore.client import pages
from cryostore.core.digest import Buffer, Checksum, sha256
from cryostore.core.errors import CryostoreError
from cryostore.core.threads import Threads, result
from cryostore.model.chunks import Chunk, GetChunk, ListChunks
from cryostore.model.objects import BackupObject, GetObjectMetadata
from cryostore.model.operation import Call

AHEAD = 4
HEADER_BYTES_MAX = 4 * 1024 * 1024
Given = TypeVar("Given")
Got = TypeVar("Got")


class SmallFileCopies(Protocol):
    """Small files elsewhere: see `sound_copies`."""

    def find(self, digest: bytes, length: int) -> bytes | None:
        """The bytes with this digest, or None."""

    def close(self) -> None:
        """Let go of everything."""


class Archive:
    """One archive, read through the storage job `job_id`. Safe to read from several threads.

    Raises ArchiveDamagedError if it is none. `close` ends its threads.
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
            self.listing_chunks, self.stored_listing_chunks = self.sealing.catalog(self.header)
        else:
            self.listing_chunks = self.stored_listing_chunks = list(self._listed(CATALOG))
        self._threads = Threads(AHEAD, "archive")
        self.copies: SmallFileCopies | None = None
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
        if self.copies is not None:
            self.copies.close()

    def copy(self, content: Content, length: int) -> bytes | None:
        """A sound copy of a small file whose chunk is damaged; None if there is none."""
        if self.copies is None or content.digest == NO_DIGEST:
            return None
        return self.copies.find(content.digest, length)

    @property
    def names(self) -> list[str]:
        """The names of all its objects."""
        return list(self._objects)

    def object_checksums(self) -> dict[str, bytes]:
        """The checksum of each of its objects."""
        return {name: Checksum.parse(each.object_checksum).digest for name, each in self._objects.items()}

    def _object(self, name: str) -> BackupObject:
        if (found := self._objects.get(name)) is None:
            raise ArchiveDamagedError(f"the archive has no object {name}")
        return found

    def blocks(self, tell: ReportProblem | None = None) -> Iterator[Block]:
        """All blocks of a whole tree, in order: see `whole_tree`. The next chunks are fetched meanwhile.

        With `tell` the blocks that can be read are there, whatever others are damaged. Raises ArchiveDamagedError, or
        what the store raises, if there are none, and without `tell`.
        """
        if tell is None:
            return with_missing_folders(self._decoded(), ignore_problem)
        return with_missing_folders(self._readable(tell), tell)

    def _decoded(self) -> Iterator[Block]:
        for data in self.ahead(self.get, self.listing_chunks):
            yield from decode(data)

    def raw_blocks(self) -> Iterator[Block]:
        """All blocks as they stand, in order, for who compares names with others and uses none of them."""
        for data in self.ahead(self.get, self.listing_chunks):
            yield from decode(data, check_names=False)

    def _readable(self, tell: ReportProblem) -> Iterator[Block]:
        last: Block | None = None
        problem: CryostoreError | None = None
        for data in self.ahead(self._got, self.listing_chunks):
            for block in decode_readable(data) if isinstance(data, bytes) else (data,):
                if isinstance(block, CryostoreError):
                    problem = block
                    reason = f"the catalog is damaged behind this folder; what it lists there is lost: {block.message}"
                    tell(last.path if last is not None else b"", reason)
                else:
                    last = block
                    yield block
        if last is None and problem is not None:
            raise problem

    def _got(self, chunk: Chunk) -> bytes | CryostoreError:
        """The bytes of a chunk, or what is wrong with it."""
        try:
            return self.get(chunk)
        except DAMAGE as error:
            return error

    def ahead(self, work: Callable[[Given], Got], given: Iterable[Given]) -> Generator[Got, None, None]:
        """The results in order, a few of them worked out in advance."""
        under_way: deque[Future[Got]] = deque()
        try:
            for one in given:
                under_way.append(self._threads.submit(work, one))
                if len(under_way) >= AHEAD:
                    yield result(under_way.popleft())
            while under_way:
                yield result(under_way.popleft())
        finally:
            for future in under_way:
                future.cancel()

    def get(self, chunk: Chunk) -> bytes:
        """The bytes of a chunk, which are those its checksum says."""
        data = self.chunk_buffer(chunk)
        return data if isinstance(data, bytes) else bytes(data)

    def chunk_buffer(self, chunk: Chunk) -> Buffer:
        """As `get`, in whatever buffer they came."""
        payload = self.call.call(GetChunk(storage_job_id=self.job_id, chunk_token=chunk.chunk_token)).data
        if self.sealing:
            return self.sealing.open(chunk, payload.data)
        if len(payload) != chunk.length or payload.sha256 != digest_of(chunk):
            raise ArchiveDamagedError(f"chunk {chunk.index} is not what its checksum says")
        return payload.data

    def content_pages(self, number: int, token: str | None = None) -> Iterator[tuple[list[Chunk], str | None]]:
        """The chunks of a content object, a page at a time from `token` on, and the token of the page behind."""
        name = content_name(number)
        operation = ListChunks(
            storage_job_id=self.job_id, object_token=self._object(name).object_token, next_token=token
        )
        for page in pages.pages(self.call, operation):
            yield self._shown(name, page.chunk_list), page.next_token

    def _shown(self, name: str, stored: list[Chunk]) -> list[Chunk]:
        return self.sealing.shown(name, stored) if self.sealing else stored

    def _listed(self, name: str) -> Iterator[Chunk]:
        return pages.chunks(self.call, self.job_id, self._object(name).object_token)

    def object_chunks(self, name: str) -> Iterator[Chunk]:
        """The chunks of an object by its name, in ascending index order."""
        return iter(self._shown(name, list(self._listed(name)))) if self.sealing else self._listed(name)

    def stored_object_chunks(self, name: str) -> Iterator[Chunk]:
        """The chunks of an object as the store has them."""
        return self._listed(name)

    def stored_chunks(self) -> Iterator[Chunk]:
        """All chunks of the catalog and the content as the store has them."""
        yield from self.stored_listing_chunks
        for content in self.header.objects:
            yield from self._listed(content_name(content.number))

    def chunk_id(self, data: Buffer) -> bytes:
        """The digest that a listed chunk with these bytes has."""
        return self.sealing.chunk_id(data) if self.sealing else sha256(data)

    def chunks_count(self, number: int) -> int:
        """How many chunks a content object has."""
        name = content_name(number)
        return len(self.sealing.table(name)) if self.sealing else self._object(name).chunks_count or 0


def digest_of(chunk: Chunk) -> bytes:
    """The digest of a listed chunk."""
    return Checksum.parse(chunk.checksum).digest
