"""A run of `cryo restore`: the entries of an archive in order, the content of many files at a time.

What stands in the target is kept, replaced or left alone as `overwrite` says. An entry is put where its archive says
only in directories that this restore made or found itself, on the way down from the target.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from cryostore.agent.archive.chunk_pages import ChunkPages
from cryostore.agent.archive.listing import ArchiveEntry, block_entries
from cryostore.agent.archive.missing_folders import MISSING_FOLDER, UNKNOWN_FOLDER, with_missing_folders
from cryostore.agent.archive.pieces import chunks_with_pieces
from cryostore.agent.archive.reader import Archive
from cryostore.agent.archive.tree import ArchiveTree
from cryostore.agent.block import Block, Extra, Kind, mtime_of
from cryostore.agent.entry import Row
from cryostore.agent.errors import TargetError
from cryostore.agent.report import Report
from cryostore.agent.restore.attributes import AttributeSetter, RefusedAttributes
from cryostore.agent.restore.directories import RestoredDirectories
from cryostore.agent.restore.entry_validation import attributes_fault, entry_fault
from cryostore.agent.restore.extraneous_entries import ExtraneousEntries
from cryostore.agent.restore.file_writer import FileWriter, RestoredFile, full_target
from cryostore.agent.restore.hard_links import FurtherName, HardLinks
from cryostore.agent.restore.name_collisions import CollisionGuard
from cryostore.agent.restore.special_files import matches_archive, special_file_maker
from cryostore.agent.restore.target_directories import ROOT, TargetDirectories
from cryostore.agent.restore.tree_removal import temporary_name
from cryostore.agent.source.walk import join
from cryostore.core.errors import NO_SPACE_ERRNOS
from cryostore.core.ids import NewId, random_id
from cryostore.core.threads import Threads, result

Matches = Callable[[bytes, bool], bool]
"""Whether a pattern fits a path in the archive; tells also whether that is a directory."""
Overwrite = Literal["never", "newer", "always", "changed"]
Mark = Literal["+", "C", "-"]
"""What would be done to an entry: made, put in the place of what is there, or removed."""
OnEntry = Callable[[Mark, bytes], None]
WINDOW_FILES = 8_192
"""How many files are put into the order of their chunks at a time. Meanwhile those before them are written."""
THREADS = 4
UNDER_WAY_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeRestoreOptions:
    """What to restore, where to, and what to do about what stands there. `path` is below the archive's root."""

    target: bytes
    path: bytes = b""
    include: Matches | None = None
    exclude: Matches | None = None
    overwrite: Overwrite = "changed"
    delete: bool = False
    dry_run: bool = False
    numeric_owner: bool = False


def restore_tree(
    archive: Archive,
    options: TreeRestoreOptions,
    report: Report,
    *,
    new_id: NewId = random_id,
    on_entry: OnEntry | None = None,
) -> None:
    """Restore, and count in `report`. A dry run tells `on_entry` what it would do, by paths in the archive.

    Raises ConfigurationError if the archive does not have the path, TargetError if the target is no directory and
    cannot be made one, ArchiveDamagedError and whatever the store raises.
    """
    target = TargetDirectories(options.target, create=not options.dry_run)
    try:
        run = _Run(archive, options, report, target, new_id, on_entry)
        try:
            run.go()
        finally:
            run.close()
    finally:
        target.close()


class _Run:
    """What one restore holds while it goes through the archive."""

    def __init__(
        self,
        archive: Archive,
        options: TreeRestoreOptions,
        report: Report,
        target: TargetDirectories,
        new_id: NewId,
        on_entry: OnEntry | None,
    ) -> None:
        self._archive = archive
        self._on_entry = on_entry
        self._options = options
        self._report = report
        self._target = target
        self._lock = threading.Lock()
        self._attributes = AttributeSetter(archive.header, numeric_owner=options.numeric_owner)
        prefix = f".cryo-restore-{new_id()[:8].lower()}-".encode()
        self._refusals = RefusedAttributes(report, self._lock)
        self._places = CollisionGuard(
            target, report, self._lock, delete=options.delete, keep_claims=options.include is not None
        )
        self._writer = FileWriter(
            archive, target, self._places, self._attributes, self._refusals, report, self._lock, prefix
        )
        self._surplus = ExtraneousEntries(
            target,
            self._places,
            lambda path, is_directory: self._wants(join(options.path, path), is_directory),
            dry_run=options.dry_run,
        )
        self._is_whole = True
        self._pages = ChunkPages(archive)
        self._directories = RestoredDirectories(
            target, self._places, self._attributes, self._refusals, self._issue, never=options.overwrite == "never"
        )
        self._pending: dict[bytes, ArchiveEntry] = {}
        """Directories that are made once something in them is wanted."""
        self._files: list[RestoredFile] = []
        self._links = HardLinks()
        self._threads = Threads(THREADS, "restore")
        self._under_way: deque[Future[None]] = deque()

    def go(self) -> None:
        """Restore all that is wanted."""
        for block in self._wanted_blocks():
            self._block(block)
            if len(self._files) >= WINDOW_FILES:
                self._write_files()
        self._write_files()
        self._wait(0)
        self._write_links()
        if self._options.delete and self._is_whole:
            self._delete_others()
        if not self._options.dry_run:
            for number in self._directories.ends():
                with self._told(self._target.path(number)):
                    self._directories.end_last()

    # --- the entries of a block ---------------------------------------------------------------------------------------

    def _wanted_blocks(self) -> Iterator[Block]:
        """The blocks of what is restored; of a part of an archive, no others are read than lead to it."""
        path = self._options.path
        if not path:
            yield from self._archive.blocks(self._damaged)
            return
        tree = ArchiveTree(self._archive)
        entry = tree.existing(path)
        if entry.row is UNKNOWN_FOLDER:
            self._damaged(path, MISSING_FOLDER)
        if entry.row.is_directory:
            self._begin_root(path, entry.row, entry.extras)
            yield from with_missing_folders(tree.below(path), self._damaged, path)
        else:
            self._entry(ROOT, entry)

    def _block(self, block: Block) -> None:
        if block.kind == Kind.ROOT:
            self._begin_root(b"", Row.unpack(block.rows), block.extras_of().get(0, []))
            return
        number = self._directories.number(block.path)
        if number is None and block.path in self._pending:
            number = -1
        if number is None:
            return
        self._report.current = block.path
        if self._options.delete and number >= 0:
            self._surplus.keep(number, block.name_list())
        for entry in block_entries(block):
            self._entry(number, entry)

    def _begin_root(self, path: bytes, row: Row, extras: Sequence[Extra]) -> None:
        keep = self._archive.header.only is not None and not path
        try:
            self._directories.begin_root(path, row, extras, dry_run=self._options.dry_run, keep=keep)
        except OSError as error:  # nothing at all can be restored
            raise TargetError.of(self._options.target, error) from error

    def _entry(self, number: int, entry: ArchiveEntry) -> None:
        path, row = entry.path, entry.row
        above, _, name = path.rpartition(b"/")
        if not self._wants(path, row.is_directory):
            if row.is_directory and self._options.include is not None:
                self._pending[path] = entry
            return
        self._report.entries += 1
        for fault in filter(None, (entry_fault(entry), attributes_fault(entry))):
            self._issue(path, fault)
        if entry_fault(entry) is not None:
            return
        try:
            if number < 0:
                number = self._make_pending(above)
            if row.is_file:
                self._file(number, name, entry)
            elif row.is_directory:
                self._directory(number, name, entry)
            else:
                self._other(number, name, entry)
        except OSError as error:
            self._tell(path, error)

    @contextmanager
    def _told(self, path: bytes) -> Iterator[None]:
        """Make an error of the target an issue, or the end if the target is full. Only for calls on the target."""
        try:
            yield
        except OSError as error:
            self._tell(path, error)

    def _tell(self, path: bytes, error: OSError) -> None:
        if error.errno in NO_SPACE_ERRNOS:
            raise full_target(self._target.name) from error
        self._issue(path, error.strerror or str(error))

    def _damaged(self, path: bytes, reason: str) -> None:
        """Name what is wrong with the catalog. It may have listed more than it does: nothing is deleted."""
        self._issue(path, reason)
        if self._options.delete and self._is_whole:
            self._issue(self._options.path, "the catalog of the recovery point is damaged: nothing is deleted")
        self._is_whole = False

    def _issue(self, path: bytes, reason: str) -> None:
        with self._lock:
            self._report.issue(path, reason)

    def _count_new(self, file_bytes: int = 0) -> None:
        with self._lock:
            self._report.new += 1
            self._report.new_bytes += file_bytes

    def _would(self, path: bytes, standing: os.stat_result | None) -> None:
        """Say of an entry that it would be restored."""
        if self._on_entry is not None:
            self._on_entry("+" if standing is None else "C", path)

    def _pass(self, row: Row) -> None:
        """Count a file whose bytes need not be written."""
        with self._lock:
            self._report.done_bytes += row.size

    def _wants(self, path: bytes, is_directory: bool) -> bool:  # noqa: FBT001 - a fact about the path
        options = self._options
        if options.exclude is not None and options.exclude(path, is_directory):
            return False
        return options.include is None or options.include(path, is_directory)

    def _make_pending(self, path: bytes) -> int:
        """Make a directory that is only there for what is in it, and those above it. Raises OSError."""
        chain = []
        above = path
        while self._directories.number(above) is None and above in self._pending:
            chain.append(above)
            above = above.rpartition(b"/")[0]
        for below in reversed(chain):
            above, _, name = below.rpartition(b"/")
            if (number := self._directories.number(above)) is not None:
                self._directory(number, name, self._pending.pop(below))
        if (number := self._directories.number(path)) is None:
            raise OSError(errno.ENOTDIR, "the folder that it is in was not restored")
        return number

    def _replace(self, entry: ArchiveEntry, standing: os.stat_result | None) -> bool:
        """Whether an entry is to be written at all."""
        if standing is None:
            return True
        overwrite = self._options.overwrite
        if overwrite == "never":
            return False
        if overwrite == "newer":
            return mtime_of(entry.row, entry.extras) > standing.st_mtime_ns
        if overwrite == "changed" and entry.row.is_file and stat.S_ISREG(standing.st_mode):
            wanted = (entry.row.size, mtime_of(entry.row, entry.extras))
            return wanted != (standing.st_size, standing.st_mtime_ns) or self._links.parts(entry.row, standing)
        return True

    def _directory(self, number: int, name: bytes, entry: ArchiveEntry) -> None:
        self._report.directories += 1
        if not self._options.dry_run:
            self._directories.add(number, name, entry)
            return
        is_made, standing = self._directories.try_one(number, name, entry)
        if is_made:
            self._would(entry.path, standing)

    # --- files --------------------------------------------------------------------------------------------------------

    def _file(self, number: int, name: bytes, entry: ArchiveEntry) -> None:
        row, extras = entry.row, entry.extras
        report = self._report
        report.files += 1
        report.file_bytes += row.size
        standing = self._places.standing(number, name)
        changed = self._options.overwrite == "changed"
        replace = self._replace(entry, standing)
        self._places.claim(number, name, standing)
        if self._links.has_first(row) and (changed or replace):
            self._links.add_other(row, number, name, entry.path, standing)
            self._pass(row)
            return
        if standing is not None and not replace and (not changed or self._keep(number, name, entry, standing)):
            report.unchanged += 1
            self._pass(row)
            if changed:  # else it may be another file, and no name must be linked to it
                self._links.add_first(row, number, name, made=False)
            return
        file = RestoredFile(number, name, row, entry.content, extras, standing)
        file.temporary = self._writer.temporary()
        self._links.add_first(row, number, name, file, made=True)
        if self._options.dry_run:
            self._would(entry.path, standing)
            self._count_new(row.size)
        else:
            self._files.append(file)

    def _keep(self, number: int, name: bytes, entry: ArchiveEntry, standing: os.stat_result) -> bool:
        """Set the attributes of a file whose content is right; False if it must be written anew for their sake.

        Raises OSError.
        """
        row, extras = entry.row, entry.extras
        with self._target.at(number) as parent:
            if self._attributes.fit(b"/proc/self/fd/%d/%s" % (parent, name), standing, row, extras):
                return True
            if self._attributes.hands_over(standing, row, extras, self._target.masters(number)):
                return False
            if not self._options.dry_run:
                problem = self._refusals.of(entry.path)
                self._attributes.apply_to_standing(parent, name, standing, row, extras, problem)
            return True

    def _write_files(self) -> None:
        files, self._files = self._files, []
        self._writer.empty([file for file in files if not file.data_bytes])
        self._write_content([file for file in files if file.data_bytes])

    def _write_content(self, wanted: list[RestoredFile]) -> None:
        """Begin to write files."""
        for chunk, pieces in chunks_with_pieces(self._pages, wanted, self._writer.lose):
            for piece in pieces:
                if piece.length < piece.wanted.data_bytes and piece.wanted.lock is None:
                    piece.wanted.lock = threading.Lock()
            self._under_way.append(self._threads.submit(self._writer.chunk, chunk, pieces))
            self._wait(UNDER_WAY_MAX)

    def _wait(self, left: int) -> None:
        """Return when fewer than `left` chunks are under way, or none if that is 0. Raises what one of them raised."""
        while self._under_way and len(self._under_way) >= left:
            result(self._under_way.popleft())

    def close(self) -> None:
        """End the threads, and take away what they have begun and not completed."""
        self._threads.shutdown()
        self._writer.abandon()
        self._directories.close()
        self._refusals.tell()

    def _write_links(self) -> None:
        for other in self._links.others():
            with self._told(other.path):
                self._write_link(other)

    def _write_link(self, other: FurtherName) -> None:
        first = other.first
        if first.file is not None and first.file.failed:
            self._issue(other.path, "is another name of a file that was not restored")
        elif not (first.made and self._options.dry_run) and self._is_linked(other):
            self._report.unchanged += 1
        else:
            if self._options.dry_run:
                self._would(other.path, other.standing)
            else:
                self._link(other)
            self._count_new()

    def _is_linked(self, other: FurtherName) -> bool:
        here = self._places.standing(other.directory, other.name)
        there = self._places.standing(other.first.directory, other.first.name)
        return here is not None and there is not None and os.path.samestat(here, there)

    def _link(self, other: FurtherName) -> None:
        first = other.first
        temporary = self._writer.temporary()
        with (
            self._target.at(other.directory) as parent,
            self._target.at(first.directory) as origin,
            temporary_name(parent, temporary),
        ):
            os.link(first.name, temporary, src_dir_fd=origin, dst_dir_fd=parent, follow_symlinks=False)
            self._places.take(other.directory, parent, temporary, other.name, other.standing)

    # --- everything else ----------------------------------------------------------------------------------------------

    def _other(self, number: int, name: bytes, entry: ArchiveEntry) -> None:
        path, row, extras = entry.path, entry.row, entry.extras
        make = special_file_maker(row, extras)
        assert make is not None  # see `fault_of`
        standing = self._places.standing(number, name)
        changed = self._options.overwrite == "changed"
        replace = self._replace(entry, standing)
        self._places.claim(number, name, standing)
        if self._links.has_first(row) and (changed or replace):
            self._links.add_other(row, number, name, path, standing)
            return
        if changed and standing is not None and not self._links.parts(row, standing):
            with self._target.at(number) as parent:
                is_there = matches_archive(parent, name, standing, row, extras, self._attributes)
            if is_there:
                self._report.unchanged += 1
                self._links.add_first(row, number, name, made=False)
                return
        if not replace:
            self._report.unchanged += 1
            return
        if self._options.dry_run:
            self._links.add_first(row, number, name, made=True)
            self._would(path, standing)
            self._count_new()
            return
        temporary = self._writer.temporary()
        with self._target.at(number) as parent, temporary_name(parent, temporary):
            make(temporary, parent)
            try:
                self._attributes.apply_to_made(parent, temporary, row, extras, self._refusals.of(path))
            finally:
                self._places.take(number, parent, temporary, name, standing)
            self._places.made(number, parent, name)
        self._links.add_first(row, number, name, made=True)
        self._count_new()

    def _delete_others(self) -> None:
        """Remove what the archive does not have from the directories that were restored."""
        for number in self._surplus.directories():
            with self._told(self._target.path(number)):
                self._report.deleted += self._surplus.remove(number, self._would_delete)

    def _would_delete(self, path: bytes) -> None:
        if self._options.dry_run and self._on_entry is not None:
            self._on_entry("-", join(self._options.path, path))
