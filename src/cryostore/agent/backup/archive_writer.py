"""Archive writer: turns the directories of a walk into blocks, and inherits every unchanged block of the base.

Compares a whole directory by its packed bytes where it can, and looks at single entries only where something is new.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from cryostore.agent.archive.block_order import BlockOrder
from cryostore.agent.archive.reader import Archive
from cryostore.agent.backup.encryption_policy import PlainPolicy
from cryostore.agent.backup.entry_reader import EntryReader
from cryostore.agent.backup.incremental_base import (
    ArchiveBase,
    BaseEntries,
    TrimmedObject,
    is_worth_trimming,
    trim_object,
)
from cryostore.agent.backup.job import drop_objects
from cryostore.agent.backup.listing_writer import ArchiveStatistics, ListingWriter
from cryostore.agent.backup.write_only_base import WriteOnlyBase, WriteOnlyEntries
from cryostore.agent.block import Block, BlockBuilder, Kind, parts_of
from cryostore.agent.entry import PACKED_NO_CONTENT, row_of
from cryostore.agent.errors import ArchiveDamagedError, SourceError, shown
from cryostore.agent.header import CATALOG, ContentObject, Header, content_name
from cryostore.agent.report import Report
from cryostore.agent.source.file_reader import FileReader
from cryostore.agent.source.owners import group_names, user_names
from cryostore.agent.source.walk import DIRECTORY_FLAGS, Directory, Walk, join
from cryostore.agent.upload.content import ContentWriter
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.agent.upload.uploader import Uploader
from cryostore.core import interrupts
from cryostore.core.digest import DIGEST_BYTES
from cryostore.core.limits import MIB
from cryostore.model.operation import Call

ONLY_BYTES_MAX = 1 * MIB
"""Total length of the paths in a header: a store accepts at most 4 MiB of metadata with an object, in base64."""
TICK_NS = 2_000_000_000
"""Coarsest timestamp granularity of file systems: after a change, another one within this time may be invisible."""


class ArchiveWriter:
    """Writes the archive of one tree into a backup job. `close` ends its threads.

    `trusted_before_ns` is a moment: the next run reads entries that changed after it again. `damaged` are the content
    objects of the base that the store has lost bytes of. A run has a base as `archive`, as `write_only`, or none.
    """

    def __init__(
        self,
        call: Call,
        job_id: str,
        root: bytes,
        only: frozenset[bytes] | None,
        archive: Archive | None,
        report: Report,
        *,
        policy: PlainPolicy,
        write_only: WriteOnlyBase | None = None,
        damaged: frozenset[int] = frozenset(),
        trusted_before_ns: int,
        before_read: Callable[[bytes], None] | None = None,
    ) -> None:
        self._call = call
        self._job_id = job_id
        self._root = root
        self._only = only
        self._report = report
        self._base: ArchiveBase | WriteOnlyBase | None = write_only
        if archive is not None:
            self._base = ArchiveBase(archive, same_root=archive.header.root == root, damaged=damaged)
        self._old_objects = {each.number: each for each in self._base.objects} if self._base else {}
        self.objects: list[ContentObject] = []
        known_chunks = DigestTable(DIGEST_BYTES)
        small_files = DigestTable()
        self._uploader = Uploader(call, known_chunks)
        number = (self._base.last_number if self._base else 0) + 1
        self._policy = policy
        self._content_upload = policy.upload(call, job_id, content_name(number))
        self._listing_upload = policy.upload(call, job_id, CATALOG)
        content = ContentWriter(self._uploader, self._content_upload, number, policy.chunker(), small_files)
        self._content = content
        self._listing = ListingWriter(call, self._uploader, self._listing_upload, archive)
        self._block_order = BlockOrder()
        self._entries = EntryReader(
            self._base,
            FileReader(content, report, before_read),
            report,
            small_files=small_files,
            known_chunks=known_chunks,
            trusted_before_ns=trusted_before_ns,
        )
        self._statistics = ArchiveStatistics()

    def close(self) -> None:
        """End the threads. Chunks that are not stored yet may never be."""
        self._uploader.close()

    # --- blocks -------------------------------------------------------------------------------------------------------

    def add_root(self, walk: Walk) -> None:
        """Write the block of the root itself. Raises SourceError."""
        status = walk.root_status
        row = row_of(status, walk.device(status.st_dev)).pack()
        try:
            fd = os.open(self._root, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        except OSError as error:
            raise SourceError.of(self._root, error) from error
        try:
            self._add_directory(Kind.ROOT, Directory(b"", fd, [b""], [row]))
        finally:
            os.close(fd)

    def add_directory(self, directory: Directory) -> None:
        """Write the blocks of a directory."""
        self._report.directories += 1
        self._report.current = directory.path
        if directory.path in self._entries.gone:
            self._report.issue(directory.path, "its extended attributes were not read: it was missing for a moment")
        self._add_directory(Kind.DIRECTORY, directory)
        self._report.files = self._statistics.files
        self._report.file_bytes = self._report.done_bytes = self._statistics.file_bytes

    def _add_directory(self, kind: Kind, directory: Directory) -> None:
        blocks = self._base.take(kind, directory.path) if self._base else []
        old = {_first_name(block): block for block in blocks}
        entries: BaseEntries | WriteOnlyEntries | None = None
        for part in parts_of(directory.names):
            start = part.start
            while (same := self._same_block(directory, start, part.stop, old)) is not None:
                self._report.unchanged += self._statistics.add(same.rows, same.contents)
                self._add_to_listing(same)
                start += same.entries
                if start == part.stop:
                    break
            else:
                if entries is None:
                    entries = self._entries_of_base(directory.path, blocks)
                self._add_new_blocks(kind, directory, range(start, part.stop), entries)

    def _same_block(self, directory: Directory, start: int, stop: int, old: dict[bytes | None, Block]) -> Block | None:
        """Return the block of the base that begins with entry `start`, if nothing in it has changed."""
        block = old.get(directory.names[start] if start < stop else None)
        if block is None or start + block.entries > stop:
            return None
        stop = start + block.entries
        if block.rows != b"".join(directory.rows[start:stop]):
            return None
        if block.names != b"".join([name + b"\0" for name in directory.names[start:stop]]):
            return None
        return block if self._base is not None and self._base.usable(block) else None

    def _add_to_listing(self, block: Block) -> None:
        """Add a block to the listing. Raises ArchiveDamagedError if the entries would not form a whole tree."""
        if (fault := self._block_order.add(block)) is not None:
            raise ArchiveDamagedError(
                f"internal error: the archive would not be a whole tree: {shown(block.path)} {fault}",
                hint="no recovery point was made; please report this, and run the backup again",
            )
        self._listing.add(block.path, block.raw)

    def _entries_of_base(self, path: bytes, blocks: list[Block]) -> BaseEntries | WriteOnlyEntries:
        return self._base.entries(path, blocks) if self._base else BaseEntries(blocks, frozenset())

    def _add_new_blocks(
        self, kind: Kind, directory: Directory, part: range, old: BaseEntries | WriteOnlyEntries
    ) -> None:
        builder = BlockBuilder(kind, directory.path)
        for index in part:
            interrupts.check()
            name = directory.names[index]
            packed = directory.rows[index]
            if (small := self._entries.new_small_file(directory, name, packed, old)) is not None:
                content, extras = small
            else:
                try:
                    entry = self._entries.entry(directory, name, packed, old)
                except SourceError as problem:
                    self._report.issue(problem.path, problem.reason)
                    continue
                if isinstance(self._base, WriteOnlyBase):
                    self._base.remember(join(directory.path, name), entry)
                packed, extras = entry.row.pack(), entry.extras
                content = entry.content.pack() if entry.content.object_number else PACKED_NO_CONTENT
            if not builder.has_room(extras):
                self._add_new_block(builder.block())
                builder = BlockBuilder(kind, directory.path)
            builder.add(name, packed, content, extras)
        self._add_new_block(builder.block())

    def _add_new_block(self, block: Block) -> None:
        self._statistics.add(block.rows, block.contents)
        self._add_to_listing(block)

    # --- objects ------------------------------------------------------------------------------------------------------

    def finish(self) -> dict[str, bytes]:
        """Complete the objects and drop those that no file needs.

        Returns the checksum of each object of the recovery point, by name: only a view with exactly these may be
        committed.
        """
        self._content.finish()
        self._listing.finish()
        self._uploader.flush()
        trimmed = self._trim()
        self._report.entries = self._statistics.entries
        self._report.sent_bytes = self._uploader.bytes_sent
        self.objects = objects = self._needed_objects(trimmed)
        listing_is_new = self._listing.complete(self._header(objects).encode())
        old = self._base.object_checksums() if self._base else {}
        found = {name: old[name] for name in map(content_name, (each.number for each in objects)) if name in old}
        if self._content_upload.chunks_count and self._content_upload.name not in found:
            found |= self._complete_content(objects)
        for number, each in trimmed.items():
            each.upload.complete()
            found[content_name(number)] = each.upload.summary()
        found[CATALOG] = self._listing_upload.summary() if listing_is_new else old[CATALOG]
        numbers = {each.number for each in objects}
        found |= self._policy.store_keys(self._call, self._job_id, old, numbers)
        drop_objects(self._call, self._job_id, sorted(old.keys() - found.keys()))
        return found

    def _complete_content(self, objects: list[ContentObject]) -> dict[str, bytes]:
        """Complete the new content object, unless the files that were read for it are not in the tree after all."""
        upload = self._content_upload
        if all(content_name(each.number) != upload.name for each in objects):
            return {}
        upload.complete()
        return {upload.name: upload.summary()}

    def _trim(self) -> dict[int, TrimmedObject]:
        """Return the objects of the base that are listed again without their dead chunks, by number."""
        found: dict[int, TrimmedObject] = {}
        if not isinstance(base := self._base, ArchiveBase):
            return found
        statistics = self._statistics
        for each in base.objects:
            number = each.number
            if number in statistics.unplaced or not statistics.live_bytes[number]:
                continue
            if not is_worth_trimming(each, statistics.live_bytes[number]):
                continue
            ends = statistics.ends[number]
            trimmed = trim_object(self._call, self._job_id, self._policy.segment, base.archive, each, ends)
            if trimmed is not None:
                found[number] = trimmed
        return found

    def _needed_objects(self, trimmed: dict[int, TrimmedObject]) -> list[ContentObject]:
        """Return the content objects that any file needs."""
        found = {number: each.content_bytes for number, each in self._old_objects.items()}
        found[self._content.object_number] = self._content_upload.content_bytes
        live = self._statistics.live_bytes
        marks = {number: each.mark for number, each in self._old_objects.items()}
        marks[self._content.object_number] = self._content_upload.mark()
        for number, each in trimmed.items():
            found[number] = each.content_bytes
            marks[number] = each.upload.mark()
        numbers = [number for number in sorted(found) if live[number]]
        return [ContentObject(number, found[number], live[number], marks[number]) for number in numbers]

    def _header(self, objects: list[ContentObject]) -> Header:
        statistics = self._statistics
        return Header(
            root=self._root,
            only=None if self._only is None or b"" in self._only else _paths_in_header(self._only),
            entries=statistics.entries,
            files=statistics.files,
            file_bytes=statistics.file_bytes,
            objects=objects,
            users=user_names(statistics.users),
            groups=group_names(statistics.groups),
        )


def _first_name(block: Block) -> bytes | None:
    """Return the first name in a block; None if it has no entry."""
    return block.names.partition(b"\0")[0] if block.entries else None


def _paths_in_header(only: frozenset[bytes]) -> list[bytes]:
    """Return the paths that were named, for the header; if they are too long, only those that show partial folders.

    One path in each folder is enough to show that the folder is partial. The folders nearest to the root come first.
    """
    if sum(map(len, only)) <= ONLY_BYTES_MAX:
        return sorted(only)
    first: dict[bytes, bytes] = {}
    for path in sorted(only):
        first.setdefault(path.rpartition(b"/")[0], path)
    found = sorted(first.values(), key=lambda path: (path.count(b"/"), path))
    length = 0
    for index, path in enumerate(found):
        length += len(path)
        if length > ONLY_BYTES_MAX:
            return sorted(found[: max(index, 1)])
    return sorted(found)
