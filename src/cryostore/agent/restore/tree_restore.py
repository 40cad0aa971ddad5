"""Restore run of a file tree: decides entry by entry what happens, in archive order.

`overwrite` decides whether an existing entry is kept or replaced. Directories, special files and hard links are made
here; the content of regular files is collected in windows and written by `file_writer`, many files at a time. Entries
are created only in directories that this run created or found itself on the way down from the target.
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

from cryostore.agent.archive.block_order import MISSING_FOLDER, UNKNOWN_FOLDER, with_missing_folders
from cryostore.agent.archive.chunks import ChunkPages
from cryostore.agent.archive.listing import ArchiveEntry, ArchiveTree, block_entries
from cryostore.agent.archive.pieces import chunks_with_pieces
from cryostore.agent.archive.reader import Archive
from cryostore.agent.block import Block, Extra, Kind, mtime_of
from cryostore.agent.entry import Row
from cryostore.agent.errors import TargetError
from cryostore.agent.report import Report
from cryostore.agent.restore.attributes import AttributeSetter, RefusedAttributes
from cryostore.agent.restore.directories import RestoredDirectories
from cryostore.agent.restore.entry_validation import entry_fault, xattr_fault
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
from cryostore.core.threads import Threads, task_result

Matches = Callable[[bytes, bool], bool]
"""Returns whether a pattern matches a path in the archive, given whether that is a directory."""
Overwrite = Literal["never", "newer", "always", "changed"]
Mark = Literal["+", "C", "-"]
"""What a dry run would do to an entry: create it, replace an existing one, or remove one."""
OnEntry = Callable[[Mark, bytes], None]
WINDOW_FILES = 8_192
"""How many files are sorted by storage order at a time, while the files before them are written."""
THREADS = 4
IN_FLIGHT_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeRestoreOptions:
    """What to restore, to which target, and how to treat existing entries. `path` is below the archive's root."""

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
    """Restore entries of an archive and count them in `report`. A dry run passes each change to `on_entry` instead.

    Raises ConfigurationError if the archive does not have the path, TargetError if the target is not a directory and
    cannot be created, ArchiveDamagedError, and what the store raises.
    """
    target = TargetDirectories(options.target, create=not options.dry_run)
    try:
        run = _Run(archive, options, report, target, new_id, on_entry)
        try:
            run.run()
        finally:
            run.close()
    finally:
        target.close()


class _Run:
    """The state of one restore run."""

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
        self._guard = CollisionGuard(
            target, report, self._lock, delete=options.delete, keep_occupied=options.include is not None
        )
        self._writer = FileWriter(
            archive, target, self._guard, self._attributes, self._refusals, report, self._lock, prefix
        )
        self._extraneous = ExtraneousEntries(
            target,
            self._guard,
            lambda path, is_directory: self._is_selected(join(options.path, path), is_directory),
            dry_run=options.dry_run,
        )
        self._listing_is_whole = True
        self._pages = ChunkPages(archive)
        self._directories = RestoredDirectories(
            target, self._guard, self._attributes, self._refusals, self._issue, never=options.overwrite == "never"
        )
        self._pending: dict[bytes, ArchiveEntry] = {}
        """Directories that are created only if an entry in them is selected."""
        self._files: list[RestoredFile] = []
        self._links = HardLinks()
        self._threads = Threads(THREADS, "restore")
        self._in_flight: deque[Future[None]] = deque()

    def run(self) -> None:
        """Restore all selected entries."""
        for block in self._selected_blocks():
            self._block(block)
            if len(self._files) >= WINDOW_FILES:
                self._write_files()
        self._write_files()
        self._wait_for_chunks(0)
        self._write_links()
        if self._options.delete and self._listing_is_whole:
            self._delete_extraneous()
        if not self._options.dry_run:
            for number in self._directories.unfinished():
                with self._errors_of(self._target.path(number)):
                    self._directories.finish_last()

    # --- the entries of a block ---------------------------------------------------------------------------------------

    def _selected_blocks(self) -> Iterator[Block]:
        """Return the blocks of the restored path. Of a part of an archive, only the chunks that lead to it are read."""
        path = self._options.path
        if not path:
            yield from self._archive.blocks(self._damaged)
            return
        tree = ArchiveTree(self._archive)
        entry = tree.require(path)
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
            self._extraneous.keep(number, block.name_list())
        for entry in block_entries(block):
            self._entry(number, entry)

    def _begin_root(self, path: bytes, row: Row, extras: Sequence[Extra]) -> None:
        keep = self._archive.header.only is not None and not path
        try:
            self._directories.begin_root(path, row, extras, dry_run=self._options.dry_run, keep=keep)
        except OSError as error:  # without the root, nothing can be restored
            raise TargetError.of(self._options.target, error) from error

    def _entry(self, number: int, entry: ArchiveEntry) -> None:
        path, row = entry.path, entry.row
        above, _, name = path.rpartition(b"/")
        if not self._is_selected(path, row.is_directory):
            if row.is_directory and self._options.include is not None:
                self._pending[path] = entry
            return
        self._report.entries += 1
        for fault in filter(None, (entry_fault(entry), xattr_fault(entry))):
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
                self._special_file(number, name, entry)
        except OSError as error:
            self._report_error(path, error)

    @contextmanager
    def _errors_of(self, path: bytes) -> Iterator[None]:
        """Make an OSError an issue of a path, or end the run if the target is full. Only for calls on the target."""
        try:
            yield
        except OSError as error:
            self._report_error(path, error)

    def _report_error(self, path: bytes, error: OSError) -> None:
        if error.errno in NO_SPACE_ERRNOS:
            raise full_target(self._target.name) from error
        self._issue(path, error.strerror or str(error))

    def _damaged(self, path: bytes, reason: str) -> None:
        """Report a problem of the listing. Entries may be missing from it, so nothing is deleted."""
        self._issue(path, reason)
        if self._options.delete and self._listing_is_whole:
            self._issue(self._options.path, "the listing of the recovery point is damaged: nothing is deleted")
        self._listing_is_whole = False

    def _issue(self, path: bytes, reason: str) -> None:
        with self._lock:
            self._report.issue(path, reason)

    def _count_new(self, file_bytes: int = 0) -> None:
        with self._lock:
            self._report.new += 1
            self._report.new_bytes += file_bytes

    def _announce(self, path: bytes, existing: os.stat_result | None) -> None:
        """Tell `on_entry` that an entry would be restored."""
        if self._on_entry is not None:
            self._on_entry("+" if existing is None else "C", path)

    def _count_unwritten(self, row: Row) -> None:
        """Count a file whose bytes need not be written."""
        with self._lock:
            self._report.done_bytes += row.size

    def _is_selected(self, path: bytes, is_directory: bool) -> bool:  # noqa: FBT001 - the signature of Matches
        options = self._options
        if options.exclude is not None and options.exclude(path, is_directory):
            return False
        return options.include is None or options.include(path, is_directory)

    def _make_pending(self, path: bytes) -> int:
        """Create a pending directory and those above it. Raises OSError."""
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
            raise OSError(errno.ENOTDIR, "its folder was not restored")
        return number

    def _replace(self, entry: ArchiveEntry, existing: os.stat_result | None) -> bool:
        """Return whether an entry is written over an existing one at all."""
        if existing is None:
            return True
        overwrite = self._options.overwrite
        if overwrite == "never":
            return False
        if overwrite == "newer":
            return mtime_of(entry.row, entry.extras) > existing.st_mtime_ns
        if overwrite == "changed" and entry.row.is_file and stat.S_ISREG(existing.st_mode):
            archived = (entry.row.size, mtime_of(entry.row, entry.extras))
            return archived != (existing.st_size, existing.st_mtime_ns) or self._links.must_replace(entry.row, existing)
        return True

    def _directory(self, number: int, name: bytes, entry: ArchiveEntry) -> None:
        self._report.directories += 1
        if not self._options.dry_run:
            self._directories.add(number, name, entry)
            return
        is_made, existing = self._directories.simulate_add(number, name, entry)
        if is_made:
            self._announce(entry.path, existing)

    # --- files --------------------------------------------------------------------------------------------------------

    def _file(self, number: int, name: bytes, entry: ArchiveEntry) -> None:
        row, extras = entry.row, entry.extras
        report = self._report
        report.files += 1
        report.file_bytes += row.size
        existing = self._guard.existing(number, name)
        changed = self._options.overwrite == "changed"
        replace = self._replace(entry, existing)
        self._guard.occupy(number, name, existing)
        if self._links.has_first(row) and (changed or replace):
            self._links.add_further(row, number, name, entry.path, existing)
            self._count_unwritten(row)
            return
        if existing is not None and not replace and (not changed or self._keep_content(number, name, entry, existing)):
            report.unchanged += 1
            self._count_unwritten(row)
            if changed:  # otherwise it may be another file, which no further name may be linked to
                self._links.add_first(row, number, name, made=False)
            return
        file = RestoredFile(number, name, row, entry.content, extras, existing)
        file.temporary = self._writer.new_temporary_name()
        self._links.add_first(row, number, name, file, made=True)
        if self._options.dry_run:
            self._announce(entry.path, existing)
            self._count_new(row.size)
        else:
            self._files.append(file)

    def _keep_content(self, number: int, name: bytes, entry: ArchiveEntry, existing: os.stat_result) -> bool:
        """Set the attributes of a file whose content is right; return False if that needs a new file.

        Raises OSError.
        """
        row, extras = entry.row, entry.extras
        with self._target.at(number) as parent:
            if self._attributes.match(b"/proc/self/fd/%d/%s" % (parent, name), existing, row, extras):
                return True
            if self._attributes.would_expose(existing, row, extras, self._target.replacers(number)):
                return False
            if not self._options.dry_run:
                report_refusal = self._refusals.reporter(entry.path)
                self._attributes.apply_to_existing(parent, name, existing, row, extras, report_refusal)
            return True

    def _write_files(self) -> None:
        files, self._files = self._files, []
        self._writer.write_empty([file for file in files if not file.data_bytes])
        self._write_content([file for file in files if file.data_bytes])

    def _write_content(self, files: list[RestoredFile]) -> None:
        """Start to write files."""
        for chunk, pieces in chunks_with_pieces(self._pages, files, self._writer.lose):
            for piece in pieces:
                if piece.length < piece.file.data_bytes and piece.file.lock is None:
                    piece.file.lock = threading.Lock()
            self._in_flight.append(self._threads.submit(self._writer.write_chunk, chunk, pieces))
            self._wait_for_chunks(IN_FLIGHT_MAX)

    def _wait_for_chunks(self, left: int) -> None:
        """Wait until fewer than `left` chunks are in flight, or none if that is 0. Raises what a task raised."""
        while self._in_flight and len(self._in_flight) >= left:
            task_result(self._in_flight.popleft())

    def close(self) -> None:
        """End the threads and remove incomplete files."""
        self._threads.shutdown()
        self._writer.abandon()
        self._directories.close()
        self._refusals.report_issues()

    def _write_links(self) -> None:
        for other in self._links.further():
            with self._errors_of(other.path):
                self._write_link(other)

    def _write_link(self, other: FurtherName) -> None:
        first = other.first
        if first.file is not None and first.file.failed:
            self._issue(other.path, "is a further name of a file that was not restored")
        elif not (first.made and self._options.dry_run) and self._is_linked(other):
            self._report.unchanged += 1
        else:
            if self._options.dry_run:
                self._announce(other.path, other.existing)
            else:
                self._link(other)
            self._count_new()

    def _is_linked(self, other: FurtherName) -> bool:
        here = self._guard.existing(other.directory, other.name)
        there = self._guard.existing(other.first.directory, other.first.name)
        return here is not None and there is not None and os.path.samestat(here, there)

    def _link(self, other: FurtherName) -> None:
        first = other.first
        temporary = self._writer.new_temporary_name()
        with (
            self._target.at(other.directory) as parent,
            self._target.at(first.directory) as origin,
            temporary_name(parent, temporary),
        ):
            os.link(first.name, temporary, src_dir_fd=origin, dst_dir_fd=parent, follow_symlinks=False)
            self._guard.rename_into_place(other.directory, parent, temporary, other.name, other.existing)

    # --- special files and deletion -----------------------------------------------------------------------------------

    def _special_file(self, number: int, name: bytes, entry: ArchiveEntry) -> None:
        path, row, extras = entry.path, entry.row, entry.extras
        make = special_file_maker(row, extras)
        assert make is not None  # `entry_fault` has checked it
        existing = self._guard.existing(number, name)
        changed = self._options.overwrite == "changed"
        replace = self._replace(entry, existing)
        self._guard.occupy(number, name, existing)
        if self._links.has_first(row) and (changed or replace):
            self._links.add_further(row, number, name, path, existing)
            return
        if changed and existing is not None and not self._links.must_replace(row, existing):
            with self._target.at(number) as parent:
                is_there = matches_archive(parent, name, existing, row, extras, self._attributes)
            if is_there:
                self._report.unchanged += 1
                self._links.add_first(row, number, name, made=False)
                return
        if not replace:
            self._report.unchanged += 1
            return
        if self._options.dry_run:
            self._links.add_first(row, number, name, made=True)
            self._announce(path, existing)
            self._count_new()
            return
        temporary = self._writer.new_temporary_name()
        with self._target.at(number) as parent, temporary_name(parent, temporary):
            make(temporary, parent)
            try:
                self._attributes.apply_to_created(parent, temporary, row, extras, self._refusals.reporter(path))
            finally:
                self._guard.rename_into_place(number, parent, temporary, name, existing)
            self._guard.note_created(number, parent, name)
        self._links.add_first(row, number, name, made=True)
        self._count_new()

    def _delete_extraneous(self) -> None:
        """Remove the entries that the archive does not have from the restored directories."""
        for number in self._extraneous.directories():
            with self._errors_of(self._target.path(number)):
                self._report.deleted += self._extraneous.remove(number, self._announce_deletion)

    def _announce_deletion(self, path: bytes) -> None:
        if self._options.dry_run and self._on_entry is not None:
            self._on_entry("-", join(self._options.path, path))
