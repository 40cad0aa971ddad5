"""A run of `cryo backup` over a file tree: walk, compare with the base, read what is new, commit.

Works on one directory at a time, and where it can on its bytes rather than on its entries.
"""

from __future__ import annotations

import grp
import json
import os
import platform
import pwd
import stat
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from cryostore.agent.archive import Archive
from cryostore.agent.incremental_base import Base, Entries, Known
from cryostore.agent.block import Block, Extra, Kind, encode, parts_of
from cryostore.agent.catalog import CatalogWriter
from cryostore.agent.chunker import ContentChunker
from cryostore.agent.content import ContentWriter
from cryostore.agent.digest_table import DigestTable
from cryostore.agent.entry import CONTENT, NO_CONTENT, PACKED_NO_CONTENT, ROW, UNTRUSTED_CTIME, Content, Row, row_of
from cryostore.agent.errors import SourceError
from cryostore.agent.header import CATALOG, ContentObject, Header, content_name
from cryostore.agent.job import BackupJob
from cryostore.agent.report import Report
from cryostore.agent.source import Source
from cryostore.agent.upload import ObjectUpload, Uploader
from cryostore.agent.walk import Directory, Select, Skipped, Walk, join
from cryostore.core.digest import DIGEST_BYTES
from cryostore.core.errors import CryostoreError
from cryostore.core.time import Clock, wall_clock
from cryostore.model.objects import DeleteObject
from cryostore.model.operation import Call

TICK_NS = 2_000_000_000
"""The coarsest step in which file systems count time: what changed within one may change again unseen."""
_MODE_AND_SIZE = struct.Struct("<I16xq24x")
_UINT32_OF_ROW = ROW.size // 4
_UINT32_OF_CONTENT = CONTENT.size // 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to back up, and how it is called. `only` are paths below the root; the others are not looked at."""

    root: bytes
    only: frozenset[bytes] | None = None
    vault: str
    resource: str
    select: Select | None = None
    markers: frozenset[bytes] = frozenset()
    one_file_system: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The recovery point that was made; none of a dry run. `same` means that nothing had changed."""

    recovery_point_arn: str | None
    base_arn: str | None
    same: bool


def backup(
    call: Call,
    options: Options,
    report: Report,
    *,
    now: Clock = wall_clock,
    before_read: Callable[[bytes], None] | None = None,
) -> Outcome:
    """Back a tree up and count in `report`.

    Raises SourceError if the root itself cannot be read, and whatever the store raises: then there is no recovery
    point. Everything else that goes wrong is an issue of the report. `before_read` is for tests.
    """
    walk = Walk(
        options.root,
        select=options.select,
        only=options.only,
        markers=options.markers,
        one_file_system=options.one_file_system,
        on_problem=lambda problem: report.issue(problem.path, problem.reason),
        on_skip=lambda skipped: _skip(report, skipped),
    )
    began_ns = now() * 1_000_000
    if options.dry_run:
        _count(walk, report)
        return Outcome(None, None, same=False)
    job = BackupJob(call, options.vault, options.resource, options.tags)
    try:
        found = job.base()
        archive = Archive(call, found.storage_job_id) if found.storage_job_id else None
        try:
            run = _Run(call, options, report, job, archive, began_ns, before_read)
            try:
                same = run.go(walk)
            finally:
                run.close()
        finally:
            if archive is not None:
                archive.close()
        committed = job.commit(_restore_metadata(options), report.issue_count)
    except BaseException as error:
        job.give_up(error.message if isinstance(error, CryostoreError) else type(error).__name__)
        raise
    return Outcome(committed.recovery_point_arn, found.base_recovery_point_arn, same)


def _skip(report: Report, skipped: Skipped) -> None:
    report.skipped[skipped.reason] += 1


def _count(walk: Walk, report: Report) -> None:
    for directory in walk:
        report.directories += 1
        report.entries += len(directory.names)
        for mode, size in _MODE_AND_SIZE.iter_unpack(b"".join(directory.rows)):
            if stat.S_ISREG(mode):
                report.files += 1
                report.file_bytes += size


def _restore_metadata(options: Options) -> dict[str, str]:
    return {
        "kind": "fileset",
        "rootPaths": json.dumps([os.fsdecode(options.root).encode("utf-8", "replace").decode()]),
        "catalogObject": CATALOG,
        "pathEncoding": "bytes",
        "hostname": platform.node(),
        "os": platform.system(),
        "features": "xattr,acl,sparse,hardlink",
    }


class _Run:
    """What one run holds while it goes through the tree."""

    def __init__(
        self,
        call: Call,
        options: Options,
        report: Report,
        job: BackupJob,
        archive: Archive | None,
        began_ns: int,
        before_read: Callable[[bytes], None] | None,
    ) -> None:
        self._call = call
        self._options = options
        self._report = report
        self._job_id = job.job_id
        self._archive = archive
        self._trusted_before_ns = began_ns - TICK_NS
        header = archive.header if archive else None
        same_root = header is not None and header.root == options.root
        self._base = Base(archive, same_root=same_root) if archive else None
        self._old_objects = {each.number: each for each in header.objects} if header else {}
        number = max(self._old_objects, default=0) + 1
        self._known_chunks = DigestTable(DIGEST_BYTES)
        self._small_files = DigestTable()
        self._loaded = archive is None
        self._uploader = Uploader(call, self._known_chunks)
        upload = ObjectUpload(call, self._job_id, content_name(number))
        self._content = ContentWriter(self._uploader, upload, number, ContentChunker(), self._small_files)
        self._source = Source(self._content, before_read)
        self._catalog = CatalogWriter(call, self._uploader, ObjectUpload(call, self._job_id, CATALOG), archive)
        self._hard_links: dict[tuple[int, int], Known] = {}
        self._live: Counter[int] = Counter()
        self._users: set[int] = set()
        self._groups: set[int] = set()

    def close(self) -> None:
        """End the threads."""
        self._uploader.close()

    def go(self, walk: Walk) -> bool:
        """Go through the tree and write the archive; answers whether it is the base's, unchanged."""
        self._root(walk)
        for directory in walk:
            self._directory(directory)
        self._content.finish()
        self._catalog.finish()
        self._uploader.flush()
        if self._content.upload.chunks_count:
            self._content.upload.complete()
        objects = self._objects()
        changed = self._catalog.complete(self._header(objects).encode())
        kept = {CATALOG, *(content_name(each.number) for each in objects)}
        for name in self._archive.names if self._archive else []:
            if name not in kept:
                self._call.call(DeleteObject(backup_job_id=self._job_id, object_name=name))
        self._report.sent_bytes = self._uploader.bytes_sent
        return not changed

    def _objects(self) -> list[ContentObject]:
        """The content objects that any file needs."""
        upload = self._content.upload
        found = {number: each.content_bytes for number, each in self._old_objects.items()}
        if upload.chunks_count:
            found[self._content.object_number] = upload.content_bytes
        return [
            ContentObject(number, found[number], self._live[number]) for number in sorted(found) if self._live[number]
        ]

    def _header(self, objects: list[ContentObject]) -> Header:
        report = self._report
        return Header(
            root=self._options.root,
            only=sorted(self._options.only) if self._options.only is not None else None,
            entries=report.entries,
            files=report.files,
            file_bytes=report.file_bytes,
            objects=objects,
            users={number: name for number in sorted(self._users) if (name := _user(number))},
            groups={number: name for number in sorted(self._groups) if (name := _group(number))},
        )

    def _root(self, walk: Walk) -> None:
        status = walk.root_status
        row = row_of(status, walk.device(status.st_dev))
        fd = os.open(self._options.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._part(Directory(b"", fd, [b"."], [row.pack()]), Kind.ROOT, [b""], range(1))
        finally:
            os.close(fd)

    def _directory(self, directory: Directory) -> None:
        self._report.directories += 1
        self._report.current = directory.path
        blocks = self._base.take(Kind.DIRECTORY, directory.path) if self._base else []
        for part in parts_of(directory.names):
            self._part(directory, Kind.DIRECTORY, directory.names, part, blocks)

    def _part(
        self, directory: Directory, kind: Kind, shown_names: list[bytes], part: range, blocks: list[Block] | None = None
    ) -> None:
        """Write one block: the base's if nothing in it has changed, else a new one."""
        if blocks is None:
            blocks = self._base.take(kind, directory.path) if self._base else []
        names = b"".join([name + b"\0" for name in shown_names[part.start : part.stop]])
        rows = b"".join(directory.rows[part.start : part.stop])
        for block in blocks:
            if block.rows == rows and block.names == names and self._base and self._base.usable(block):
                self._emit(directory.path, block.raw, block.rows, block.contents)
                self._report.unchanged += _files(block.rows)
                return
        _Part(self, directory, kind, shown_names, part, blocks).write()

    def _emit(self, path: bytes, raw: bytes, rows: bytes, contents: bytes) -> None:
        """Hand a block to the catalog, and count what is in it."""
        report = self._report
        numbers = memoryview(contents).cast("I")[::_UINT32_OF_CONTENT]
        live = self._live
        for (mode, size), number in zip(_MODE_AND_SIZE.iter_unpack(rows), numbers, strict=True):
            if mode & 0o170000 == 0o100000:
                report.files += 1
                report.file_bytes += size
                if number:
                    live[number] += size
        report.entries += len(numbers)
        words = memoryview(rows).cast("I")
        self._users.update(words[1::_UINT32_OF_ROW])
        self._groups.update(words[2::_UINT32_OF_ROW])
        self._catalog.add(path, raw)

    def load(self) -> None:
        """Learn what the base has, when the first new file needs it."""
        if not self._loaded and self._base is not None:
            self._base.load_small_files(self._small_files)
            self._base.load_chunks(self._known_chunks)
        self._loaded = True


class _Part:
    """A block whose entries are looked at one by one."""

    def __init__(
        self, run: _Run, directory: Directory, kind: Kind, shown_names: list[bytes], part: range, blocks: list[Block]
    ) -> None:
        self._run = run
        self._directory = directory
        self._kind = kind
        self._shown_names = shown_names
        self._part = part
        self._old = Entries(blocks, run._base.retired) if run._base else None  # noqa: SLF001 - two halves of one thing
        self._names: list[bytes] = []
        self._rows: list[bytes] = []
        self._contents: list[bytes] = []
        self._extras: dict[int, list[Extra]] = {}

    def write(self) -> None:
        """Look at each entry, then write the block."""
        directory = self._directory
        report = self._run._report  # noqa: SLF001 - as above
        for index in self._part:
            path = join(directory.path, directory.names[index])
            try:
                known = self._entry(index, path)
            except SourceError as problem:
                report.issue(problem.path, problem.reason)
                continue
            if known.extras:
                self._extras[len(self._names)] = known.extras
            self._names.append(self._shown_names[index])
            self._rows.append(known.row.pack())
            self._contents.append(known.content.pack() if known.content.object_number else PACKED_NO_CONTENT)
        names = b"".join(name + b"\0" for name in self._names)
        raw = encode(self._kind, directory.path, names, self._rows, self._contents, self._extras)
        self._run._emit(directory.path, raw, b"".join(self._rows), b"".join(self._contents))  # noqa: SLF001 - as above

    def _entry(self, index: int, path: bytes) -> Known:
        run = self._run
        directory = self._directory
        packed, name = directory.rows[index], directory.names[index]
        row = Row.unpack(packed)
        known = self._old.unchanged(self._shown_names[index], packed) if self._old else None
        if known is not None:
            run._report.unchanged += row.is_file  # noqa: SLF001 - as above
            return known._replace(row=row)
        if not row.is_file:
            extras = run._source.other(directory.fd, path, name, row)  # noqa: SLF001 - as above
            return Known(self._trusted(row), NO_CONTENT, extras)
        return self._file(path, name, row)

    def _file(self, path: bytes, name: bytes, row: Row) -> Known:
        run = self._run
        report = run._report  # noqa: SLF001 - as above
        link = (row.device, row.inode)
        if row.links > 1 and (known := run._hard_links.get(link)) is not None:  # noqa: SLF001 - as above
            return known
        run.load()
        stored = run._source.file(self._directory.fd, path, name, row)  # noqa: SLF001 - as above
        if not stored.steady:
            report.issue(path, "changed while it was read")
        report.read_bytes += stored.row.size
        report.new_bytes += stored.new_bytes
        if self._old is not None and self._shown_name_known(name):
            report.changed += 1
        else:
            report.new += 1
        row = self._trusted(stored.row) if stored.steady else stored.row._replace(ctime_ns=UNTRUSTED_CTIME)
        content: Content = stored.content
        known = Known(row, content, stored.extras)
        if row.links > 1:
            run._hard_links[link] = known  # noqa: SLF001 - as above
        return known

    def _shown_name_known(self, name: bytes) -> bool:
        return self._old is not None and name in self._old

    def _trusted(self, row: Row) -> Row:
        """The row, marked if the entry could change again without a trace."""
        if max(row.mtime_ns, row.ctime_ns) < self._run._trusted_before_ns:  # noqa: SLF001 - as above
            return row
        return row._replace(ctime_ns=UNTRUSTED_CTIME)


def _files(rows: bytes) -> int:
    return sum(mode & 0o170000 == 0o100000 for mode in memoryview(rows).cast("I")[::_UINT32_OF_ROW])


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return ""


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return ""
