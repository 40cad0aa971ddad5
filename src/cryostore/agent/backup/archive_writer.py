"""Writing an archive: directories as they are walked become blocks, the base's wherever nothing has changed.

Works on a whole directory's bytes where it can, and looks at single entries only where something is new.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from cryostore.agent.archive.block_order import BlockOrder
from cryostore.agent.archive.reader import Archive
from cryostore.agent.backup.catalog_writer import CatalogWriter
from cryostore.agent.backup.incremental_base import Base, Entries, Known, identity_of
from cryostore.agent.backup.job import drop_objects
from cryostore.agent.backup.policy import Plain
from cryostore.agent.backup.remembered_base import RememberedBase, RememberedEntries
from cryostore.agent.backup.statistics import FORMAT_BITS, REGULAR, Census
from cryostore.agent.backup.trimming import Trimmed, trim, worth_trimming
from cryostore.agent.block import Block, BlockBuilder, Extra, Kind, parts_of
from cryostore.agent.entry import NO_CONTENT, PACKED_NO_CONTENT, ROW, UNTRUSTED_CTIME, Row, is_held, row_of
from cryostore.agent.errors import ArchiveDamagedError, SourceError, shown
from cryostore.agent.header import CATALOG, ContentObject, Header, content_name
from cryostore.agent.report import Report
from cryostore.agent.source.owners import group_names, user_names
from cryostore.agent.source.read_files import REPLACED, Source
from cryostore.agent.source.walk import DIRECTORY_FLAGS, Directory, Walk, join
from cryostore.agent.upload.content import SMALL_BYTES_MAX, ContentWriter
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.agent.upload.uploader import Uploader
from cryostore.core import interrupts
from cryostore.core.digest import DIGEST_BYTES
from cryostore.core.limits import MIB
from cryostore.model.operation import Call

ONLY_BYTES_MAX = 1 * MIB
"""How long the paths in a header may be together: a store takes no more than 4 MiB with a catalog, in base64."""
TICK_NS = 2_000_000_000
"""The coarsest step in which file systems count time: what changed within one may change again unseen."""


class ArchiveWriter:
    """Writes the archive of one tree into a backup job. `close` ends its threads.

    `trusted_before_ns` is a moment: what was changed after it is read again by the next run. `damaged` are content
    objects of the base that the store has lost bytes of.
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
        secrecy: Plain,
        remembered: RememberedBase | None = None,
        damaged: frozenset[int] = frozenset(),
        trusted_before_ns: int,
        before_read: Callable[[bytes], None] | None = None,
    ) -> None:
        self._call = call
        self._job_id = job_id
        self._root = root
        self._only = only
        self._report = report
        self._trusted_before_ns = trusted_before_ns
        self._base: Base | RememberedBase | None = remembered
        if archive is not None:
            self._base = Base(archive, same_root=archive.header.root == root, damaged=damaged)
        self._old_objects = {each.number: each for each in self._base.objects} if self._base else {}
        self.objects: list[ContentObject] = []
        self._known_chunks = DigestTable(DIGEST_BYTES)
        self._small_files = DigestTable()
        self._loaded = self._base is None
        self._uploader = Uploader(call, self._known_chunks)
        number = (self._base.last_number if self._base else 0) + 1
        self._secrecy = secrecy
        self._content_upload = secrecy.upload(call, job_id, content_name(number))
        self._catalog_upload = secrecy.upload(call, job_id, CATALOG)
        content = ContentWriter(self._uploader, self._content_upload, number, secrecy.chunker(), self._small_files)
        self._content = content
        self._source = Source(content, report, before_read)
        self._catalog = CatalogWriter(call, self._uploader, self._catalog_upload, archive)
        self._block_order = BlockOrder()
        self._gone: set[bytes] = set()
        """Directories that were not there when their attributes were to be read."""
        self._hard_links: dict[tuple[int, int], Known] = {}
        self._census = Census()

    def close(self) -> None:
        """End the threads; what is not stored yet may never be."""
        self._uploader.close()

    # --- blocks -------------------------------------------------------------------------------------------------------

    def root(self, walk: Walk) -> None:
        """Write the block of the root itself. Raises SourceError."""
        status = walk.root_status
        row = row_of(status, walk.device(status.st_dev)).pack()
        try:
            fd = os.open(self._root, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        except OSError as error:
            raise SourceError.of(self._root, error) from error
        try:
            self._blocks(Kind.ROOT, Directory(b"", fd, [b""], [row]))
        finally:
            os.close(fd)

    def directory(self, directory: Directory) -> None:
        """Write the blocks of a directory."""
        self._report.directories += 1
        self._report.current = directory.path
        if directory.path in self._gone:
            self._report.issue(directory.path, "its extended attributes were not read: it was gone for a moment")
        self._blocks(Kind.DIRECTORY, directory)
        self._report.files = self._census.files
        self._report.file_bytes = self._report.done_bytes = self._census.file_bytes

    def _blocks(self, kind: Kind, directory: Directory) -> None:
        blocks = self._base.take(kind, directory.path) if self._base else []
        old = {_first_name(block): block for block in blocks}
        entries: Entries | RememberedEntries | None = None
        for part in parts_of(directory.names):
            start = part.start
            while (same := self._same_block(directory, start, part.stop, old)) is not None:
                self._report.unchanged += self._census.add(same.rows, same.contents)
                self._add(same)
                start += same.entries
                if start == part.stop:
                    break
            else:
                if entries is None:
                    entries = self._entries_of(directory.path, blocks)
                self._new_blocks(kind, directory, range(start, part.stop), entries)

    def _same_block(self, directory: Directory, start: int, stop: int, old: dict[bytes | None, Block]) -> Block | None:
        """The block of the base that begins with an entry, if nothing in it has changed."""
        block = old.get(directory.names[start] if start < stop else None)
        if block is None or start + block.entries > stop:
            return None
        stop = start + block.entries
        if block.rows != b"".join(directory.rows[start:stop]):
            return None
        if block.names != b"".join([name + b"\0" for name in directory.names[start:stop]]):
            return None
        return block if self._base is not None and self._base.usable(block) else None

    def _add(self, block: Block) -> None:
        """Add a block to the catalog. Raises ArchiveDamagedError if the tree would not be whole."""
        if (fault := self._block_order.add(block)) is not None:
            raise ArchiveDamagedError(
                f"the archive would not be a whole tree: {shown(block.path)} {fault}",
                hint="no recovery point was made; run the backup again and report this",
            )
        self._catalog.add(block.path, block.raw)

    def _entries_of(self, path: bytes, blocks: list[Block]) -> Entries | RememberedEntries:
        return self._base.entries(path, blocks) if self._base else Entries(blocks, frozenset())

    def _new_blocks(self, kind: Kind, directory: Directory, part: range, old: Entries | RememberedEntries) -> None:
        builder = BlockBuilder(kind, directory.path)
        for index in part:
            interrupts.check()
            name = directory.names[index]
            packed = directory.rows[index]
            if (small := self._new_small_file(directory, name, packed, old)) is not None:
                content, extras = small
            else:
                try:
                    entry = self._entry(directory, name, packed, old)
                except SourceError as problem:
                    self._report.issue(problem.path, problem.reason)
                    continue
                if isinstance(self._base, RememberedBase):
                    self._base.remember(join(directory.path, name), entry)
                packed, extras = entry.row.pack(), entry.extras
                content = entry.content.pack() if entry.content.object_number else PACKED_NO_CONTENT
            if not builder.has_room(extras):
                self._add_new(builder.block())
                builder = BlockBuilder(kind, directory.path)
            builder.add(name, packed, content, extras)
        self._add_new(builder.block())

    def _add_new(self, block: Block) -> None:
        self._census.add(block.rows, block.contents)
        self._add(block)

    def _new_small_file(
        self, directory: Directory, name: bytes, packed: bytes, old: Entries | RememberedEntries
    ) -> tuple[bytes, list[Extra]] | None:
        """The packed content and the extras of such a file, on the short way; None if `_entry` is to say what it is."""
        row = ROW.unpack(packed)
        mode, _, _, links, _, size, _, ctime_ns, _ = row
        if (
            mode & FORMAT_BITS != REGULAR
            or size > SMALL_BYTES_MAX
            or links > 1
            or ctime_ns >= self._trusted_before_ns
            or not is_held(ctime_ns)
            or not isinstance(old, Entries)
            or name in old
        ):
            return None
        self._load_base()
        small = self._source.small(directory, name, row)
        if small is not None:
            self._report.new += 1
        return small

    # --- entries ------------------------------------------------------------------------------------------------------

    def _entry(self, directory: Directory, name: bytes, packed: bytes, old: Entries | RememberedEntries) -> Known:
        """What the archive says of an entry. Raises SourceError."""
        row = Row.unpack(packed)
        if (known := old.unchanged(name, row)) is not None:
            return self._unchanged(directory, name, known._replace(row=row), old)
        path = join(directory.path, name)
        if not row.is_file:
            return self._with_attributes(directory, name, Known(self._trusted(row), NO_CONTENT, []))
        link = (row.device, row.inode)
        if row.links > 1 and (known := self._hard_links.get(link)) is not None:
            self._count_read(is_new=name not in old)
            return known
        known = self._read(directory, path, name, row, old)
        if row.links > 1:
            self._hard_links[link] = known
        return known

    def _unchanged(self, directory: Directory, name: bytes, known: Known, old: Entries | RememberedEntries) -> Known:
        """An entry as the base has it. Raises SourceError."""
        self._report.unchanged += known.row.is_file
        if isinstance(old, RememberedEntries):  # attributes are not remembered
            return self._with_attributes(directory, name, known)
        return known

    def _read(
        self, directory: Directory, path: bytes, name: bytes, row: Row, old: Entries | RememberedEntries
    ) -> Known:
        """The entry of a file that is read. Raises SourceError.

        An unchanged file is read only to give its content a better place. If that fails, the entry of the base stays:
        the object that holds the content is then needed, so it is neither dropped nor trimmed of it.
        """
        held = old.held(name, row)
        try:
            known = self._same_file(directory, path, name, row, old)
            return known or self._file(directory, path, name, row, old, held)
        except SourceError as problem:
            if held is None or problem.errno in REPLACED:
                raise
            return self._kept(directory, name, held._replace(row=row), [problem.reason], old)

    def _kept(
        self, directory: Directory, name: bytes, held: Known, reasons: list[str], old: Entries | RememberedEntries
    ) -> Known:
        """An unchanged entry as the base has it, since it could not be read."""
        for reason in reasons:
            kept = f"{reason}; the file is unchanged, and its copy in the last recovery point is kept"
            self._report.issue(join(directory.path, name), kept)
        return self._unchanged(directory, name, held, old)

    def _with_attributes(self, directory: Directory, name: bytes, known: Known) -> Known:
        """An entry with the extras that are read without its content. Raises SourceError."""
        path = join(directory.path, name)
        extras, missing, gone = self._source.other(directory.fd, path, name or b".", known.row)
        if gone:
            self._gone.add(path)
        known = known._replace(extras=[*extras, *known.extras])
        return self._incomplete(path, missing, known) if missing or gone else known

    def _incomplete(self, path: bytes, missing: list[str], known: Known) -> Known:
        """An entry of which something could not be read: the next run tries again."""
        for reason in missing:
            self._report.issue(path, reason)
        return known._replace(row=known.row._replace(ctime_ns=UNTRUSTED_CTIME))

    def _same_file(
        self, directory: Directory, path: bytes, name: bytes, row: Row, old: Entries | RememberedEntries
    ) -> Known | None:
        """A large file that was too young to be trusted by the last run, if its bytes are still what they were then."""
        if row.size <= SMALL_BYTES_MAX or not isinstance(base := self._base, Base) or not isinstance(old, Entries):
            return None
        if (content := old.alike(name, row)) is None:
            return None
        holds = partial(base.holds, content, row.size)
        if (stored := self._source.same(directory.fd, path, name, row, content, holds)) is None:
            return None
        self._report.unchanged += 1
        known = Known(self._trusted(stored.row), stored.content, stored.extras)
        return self._incomplete(path, stored.missing, known) if stored.missing else known

    def _file(
        self,
        directory: Directory,
        path: bytes,
        name: bytes,
        row: Row,
        old: Entries | RememberedEntries,
        held: Known | None,
    ) -> Known:
        self._load_base()
        stored = self._source.file(directory.fd, path, name, row, old.digest(name))
        if (
            held is not None
            and stored.missing
            and isinstance(old, Entries)
            and identity_of(stored.row) == identity_of(row)
        ):
            return self._kept(directory, name, held._replace(row=row), stored.missing, old)
        self._count_read(is_new=name not in old)
        known = Known(self._trusted(stored.row), stored.content, stored.extras)
        missing = stored.missing if stored.steady else [*stored.missing, "changed while it was read"]
        return self._incomplete(path, missing, known) if missing else known

    def _count_read(self, *, is_new: bool) -> None:
        if is_new:
            self._report.new += 1
        else:
            self._report.changed += 1

    def _trusted(self, row: Row) -> Row:
        """The row, marked if the entry could change again without a trace.

        Only the change time tells: the modification time is what its owner says it is, often a moment to come.
        """
        if row.ctime_ns < self._trusted_before_ns and is_held(row.ctime_ns):
            return row
        return row._replace(ctime_ns=UNTRUSTED_CTIME)

    def _load_base(self) -> None:
        """Learn what the base has, when the first new file needs it."""
        if not self._loaded and self._base is not None:
            self._base.load_small_files(self._small_files)
            self._base.load_chunks(self._known_chunks)
        self._loaded = True

    # --- the end ------------------------------------------------------------------------------------------------------

    def finish(self) -> dict[str, bytes]:
        """Complete the objects and drop those that nothing needs.

        Answers the checksum of each object the recovery point has: only a view that is exactly this may be committed.
        """
        self._content.finish()
        self._catalog.finish()
        self._uploader.flush()
        trimmed = self._trim()
        self._report.entries = self._census.entries
        self._report.sent_bytes = self._uploader.bytes_sent
        self.objects = objects = self._objects(trimmed)
        catalog_is_new = self._catalog.complete(self._header(objects).encode())
        old = self._base.object_checksums() if self._base else {}
        found = {name: old[name] for name in map(content_name, (each.number for each in objects)) if name in old}
        if self._content_upload.chunks_count and self._content_upload.name not in found:
            found |= self._complete_content(objects)
        for number, each in trimmed.items():
            each.upload.complete()
            found[content_name(number)] = each.upload.summary()
        found[CATALOG] = self._catalog_upload.summary() if catalog_is_new else old[CATALOG]
        numbers = {each.number for each in objects}
        found |= self._secrecy.store_keys(self._call, self._job_id, old, numbers)
        drop_objects(self._call, self._job_id, sorted(old.keys() - found.keys()))
        return found

    def _complete_content(self, objects: list[ContentObject]) -> dict[str, bytes]:
        """Complete the new content object, unless the files it was read for are not in the tree after all."""
        upload = self._content_upload
        if all(content_name(each.number) != upload.name for each in objects):
            return {}
        upload.complete()
        return {upload.name: upload.summary()}

    def _trim(self) -> dict[int, Trimmed]:
        """The base's objects that are listed anew without their dead chunks, by number."""
        found: dict[int, Trimmed] = {}
        if not isinstance(base := self._base, Base):
            return found
        census = self._census
        for each in base.objects:
            number = each.number
            if number in census.unplaced or not census.live_bytes[number]:
                continue
            if not worth_trimming(each, census.live_bytes[number]):
                continue
            trimmed = trim(self._call, self._job_id, self._secrecy, base.archive, each, census.ends[number])
            if trimmed is not None:
                found[number] = trimmed
        return found

    def _objects(self, trimmed: dict[int, Trimmed]) -> list[ContentObject]:
        """The content objects that any file needs."""
        found = {number: each.content_bytes for number, each in self._old_objects.items()}
        found[self._content.object_number] = self._content_upload.content_bytes
        live = self._census.live_bytes
        marks = {number: each.mark for number, each in self._old_objects.items()}
        marks[self._content.object_number] = self._content_upload.mark()
        for number, each in trimmed.items():
            found[number] = each.content_bytes
            marks[number] = each.upload.mark()
        numbers = [number for number in sorted(found) if live[number]]
        return [ContentObject(number, found[number], live[number], marks[number]) for number in numbers]

    def _header(self, objects: list[ContentObject]) -> Header:
        census = self._census
        return Header(
            root=self._root,
            only=None if self._only is None or b"" in self._only else _noted(self._only),
            entries=census.entries,
            files=census.files,
            file_bytes=census.file_bytes,
            objects=objects,
            users=user_names(census.users),
            groups=group_names(census.groups),
        )


def _first_name(block: Block) -> bytes | None:
    """What a block begins with; None if it has no entry."""
    return block.names.partition(b"\0")[0] if block.entries else None


def _noted(only: frozenset[bytes]) -> list[bytes]:
    """What a header says of the paths that were named: all, or of too many those that tell which folders are partial.

    One path in each folder is enough for that, then the folders nearest to the root.
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
