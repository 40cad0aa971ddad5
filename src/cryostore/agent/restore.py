"""A run of `cryo restore`: the entries of an archive in order, the content of many files at a time.

What stands in the target is kept, replaced or left alone as `overwrite` says. An entry is put where its archive says
only in directories that this restore made or found itself, on the way down from the target.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from cryostore.agent.archive import Archive
from cryostore.agent.attributes import Attributes
from cryostore.agent.block import Block, Extra, Kind
from cryostore.agent.entry import Content, Row
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.pieces import ChunkPages, chunks_of
from cryostore.agent.removal import passing, remove_tree
from cryostore.agent.report import Report
from cryostore.agent.restored_links import OtherName, RestoredLinks
from cryostore.agent.restored_others import is_as_archived, maker_of
from cryostore.agent.restoring import FULL, FileWriter, RestoredFile, full_target
from cryostore.agent.shut_directories import ShutDirectories
from cryostore.agent.target import ROOT, Target, is_plain
from cryostore.agent.threads import Threads, result
from cryostore.agent.walk import join
from cryostore.core import interrupts
from cryostore.core.errors import ConfigurationError
from cryostore.core.ids import NewId, random_id
from cryostore.model.errors import ServiceInternalException

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
class Options:
    """What to restore, where to, and what to do about what stands there. `path` is below the archive's root."""

    target: bytes
    path: bytes = b""
    include: Matches | None = None
    exclude: Matches | None = None
    overwrite: Overwrite = "changed"
    delete: bool = False
    dry_run: bool = False
    numeric_owner: bool = False


@dataclass(slots=True)
class _DirectoryEnd:
    """What is done to a directory when all else is done."""

    number: int
    row: Row
    extras: Sequence[Extra]


def restore(
    archive: Archive,
    options: Options,
    report: Report,
    *,
    new_id: NewId = random_id,
    on_entry: OnEntry | None = None,
) -> None:
    """Restore, and count in `report`. A dry run tells `on_entry` what it would do, by paths in the archive.

    Raises ConfigurationError if the archive does not have the path, TargetError if the target is no directory and
    cannot be made one, ArchiveDamagedError and whatever the store raises.
    """
    target = Target(options.target, create=not options.dry_run)
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
        options: Options,
        report: Report,
        target: Target,
        new_id: NewId,
        on_entry: OnEntry | None,
    ) -> None:
        self._archive = archive
        self._on_entry = on_entry
        self._options = options
        self._report = report
        self._target = target
        self._lock = threading.Lock()
        self._attributes = Attributes(archive.header, numeric_owner=options.numeric_owner)
        prefix = f".cryo-restore-{new_id()[:8].lower()}-".encode()
        self._writer = FileWriter(archive, target, self._attributes, report, self._lock, prefix, delete=options.delete)
        self._pages = ChunkPages(archive)
        self._numbers: dict[bytes, int] = {}
        """The numbers of the directories that are restored, by their paths in the archive."""
        self._pending: dict[bytes, tuple[bytes, bytes, Row, Sequence[Extra]]] = {}
        """Directories that are made once something in them is wanted."""
        self._ends: list[_DirectoryEnd] = []
        self._shut = ShutDirectories(target)
        self._files: list[RestoredFile] = []
        self._links = RestoredLinks()
        self._wanted: dict[int, set[bytes]] = {}
        self._found = False
        self._threads = Threads(THREADS, "restore")
        self._under_way: deque[Future[None]] = deque()

    def go(self) -> None:
        """Restore all that is wanted."""
        for block in self._archive.blocks():
            self._block(block)
            if len(self._files) >= WINDOW_FILES:
                self._write_files()
        if not self._found:
            raise ConfigurationError(
                f"the recovery point has no {os.fsdecode(self._options.path)!a}",
                hint="`cryo ls POINT` shows what it has",
            )
        self._write_files()
        self._wait(0)
        self._write_links()
        if self._options.delete:
            self._delete_others()
        if not self._options.dry_run:
            for end in reversed(self._ends):
                self._end_directory(end)

    # --- the entries of a block ---------------------------------------------------------------------------------------

    def _block(self, block: Block) -> None:
        path = self._options.path
        if block.kind == Kind.ROOT:
            if not path:
                self._begin_root(b"", Row.unpack(block.rows), block.extras_of().get(0, []))
            return
        number = self._numbers.get(block.path, -1 if block.path in self._pending else None)
        if number is None and path and block.path == path.rpartition(b"/")[0]:
            self._look_for_path(block, path.rpartition(b"/")[2])
            return
        if number is None:
            return
        self._report.current = block.path
        extras = block.extras_of()
        names = block.name_list()
        if self._options.delete and number >= 0:
            self._wanted.setdefault(number, set()).update(names)
        for index, name in enumerate(names):
            self._entry(number, join(block.path, name), name, block, index, extras.get(index, []))

    def _begin_root(self, path: bytes, row: Row, extras: Sequence[Extra]) -> None:
        self._found = True
        self._numbers[path] = ROOT
        if not self._options.dry_run:
            with self._target.at(ROOT) as fd:
                self._shut.open_up(ROOT, fd, b".")
        keep = self._options.overwrite == "never" or (self._archive.header.only is not None and not path)
        if self._target.made or not keep:
            self._ends.append(_DirectoryEnd(ROOT, row, extras))

    def _look_for_path(self, block: Block, name: bytes) -> None:
        names = block.name_list()
        if name not in names:
            return
        index = names.index(name)
        row = Row.unpack(block.rows, index)
        extras = block.extras_of().get(index, [])
        if row.is_directory:
            self._begin_root(self._options.path, row, extras)
        else:
            self._found = True
            self._entry(ROOT, self._options.path, name, block, index, extras)

    def _entry(self, number: int, path: bytes, name: bytes, block: Block, index: int, extras: Sequence[Extra]) -> None:
        row = Row.unpack(block.rows, index)
        if not self._wants(path, row.is_directory):
            if row.is_directory and self._options.include is not None:
                self._pending[path] = (block.path, name, row, extras)
            return
        self._report.entries += 1
        try:
            if number < 0:
                number = self._make_pending(block.path)
            if row.is_file:
                self._file(number, path, name, row, Content.unpack(block.contents, index), extras)
            elif row.is_directory:
                self._directory(number, path, name, row, extras)
            else:
                self._other(number, path, name, row, extras)
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
        if error.errno in FULL:
            raise full_target(self._target.name) from error
        self._issue(path, error.strerror or str(error))

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
        """Count a file of which nothing has to be written."""
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
        while path not in self._numbers:
            chain.append(path)
            path = self._pending[path][0]
        for below in reversed(chain):
            parent, name, row, extras = self._pending.pop(below)
            self._directory(self._numbers[parent], below, name, row, extras)
        return self._numbers[chain[0]] if chain else self._numbers[path]

    def _standing(self, number: int, name: bytes) -> os.stat_result | None:
        """What stands in an entry's place. Raises OSError."""
        if number < 0 or self._target.fresh(number):
            return None
        try:
            with self._target.at(number) as parent:
                return os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _replace(self, row: Row, standing: os.stat_result | None) -> bool:
        """Whether an entry is to be written at all."""
        if standing is None:
            return True
        overwrite = self._options.overwrite
        if overwrite == "never":
            return False
        if overwrite == "newer":
            return row.mtime_ns > standing.st_mtime_ns
        if overwrite == "changed" and row.is_file and stat.S_ISREG(standing.st_mode):
            differs = (row.size, row.mtime_ns) != (standing.st_size, standing.st_mtime_ns)
            return differs or self._links.parts(row, standing)
        return True

    # --- directories --------------------------------------------------------------------------------------------------

    def _directory(self, number: int, path: bytes, name: bytes, row: Row, extras: Sequence[Extra]) -> None:
        self._report.directories += 1
        standing = self._standing(number, name)
        if standing is not None and stat.S_ISDIR(standing.st_mode):
            fresh = plain = False
            keep = self._options.overwrite == "never"
        elif standing is not None and self._options.overwrite == "never":
            self._issue(path, "is no directory in the target; what is in it was not restored")
            return
        else:
            fresh, keep = True, False
            plain = False
            if self._options.dry_run:
                self._would(path, standing)
            else:
                with self._target.at(number) as parent:
                    if standing is not None:
                        os.unlink(name, dir_fd=parent)
                    os.mkdir(name, 0o700, dir_fd=parent)
                    # Below a plain one there are none but plain ones: it has nothing to hand down.
                    plain = self._target.plain(number) or is_plain(name, parent)
        below = self._target.add(number, name, fresh=fresh, plain=fresh and plain)
        self._numbers[path] = below
        if not fresh and not self._options.dry_run:
            with self._target.at(number) as parent:
                self._shut.open_up(below, parent, name)
        if not keep:
            self._ends.append(_DirectoryEnd(below, row, extras))

    def _end_directory(self, end: _DirectoryEnd) -> None:
        number = end.number
        try:
            with self._target.at(number) as fd:
                self._attributes.apply(
                    fd,
                    end.row,
                    end.extras,
                    lambda reason: self._issue(self._target.path(number), reason),
                    is_plain=self._target.plain(number),
                )
                self._shut.ended(number)
        except OSError as error:
            self._tell(self._target.path(number), error)

    # --- files --------------------------------------------------------------------------------------------------------

    def _file(self, number: int, path: bytes, name: bytes, row: Row, content: Content, extras: Sequence[Extra]) -> None:
        report = self._report
        report.files += 1
        report.file_bytes += row.size
        standing = self._standing(number, name)
        changed = self._options.overwrite == "changed"
        if self._links.has_first(row) and (changed or self._replace(row, standing)):
            self._links.add_other(row, number, name, path)
            self._pass(row)
            return
        if not self._replace(row, standing):
            report.unchanged += 1
            self._pass(row)
            if changed:  # else it may be another file, and no name must be linked to it
                self._links.add_first(row, number, name, made=False)
            if changed and not self._options.dry_run:
                self._repair(number, path, name, row, extras)
            return
        old = standing is not None and stat.S_ISREG(standing.st_mode)
        file = RestoredFile(number, name, row, content, extras, old, standing is not None)
        file.temporary = self._writer.temporary()
        if file.data_bytes and not content.object_number:
            raise ArchiveDamagedError("a file has no content")
        self._links.add_first(row, number, name, file, made=True)
        if self._options.dry_run:
            self._would(path, standing)
            self._count_new(row.size)
        else:
            self._files.append(file)

    def _repair(self, number: int, path: bytes, name: bytes, row: Row, extras: Sequence[Extra]) -> None:
        """Set the attributes of a file whose content is right."""
        with self._target.at(number) as parent:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=parent)
        try:
            self._attributes.apply(fd, row, extras, lambda reason: self._issue(path, reason))
        finally:
            os.close(fd)

    def _write_files(self) -> None:
        files, self._files = self._files, []
        self._writer.empty([file for file in files if not file.data_bytes])
        by_object: dict[int, list[RestoredFile]] = {}
        for file in files:
            if file.data_bytes:
                by_object.setdefault(file.content.object_number, []).append(file)
        for number in sorted(by_object):
            try:
                self._write_content(by_object[number])
            except ServiceInternalException as error:  # what it holds is not known any more
                self._wait(0)
                self._writer.lose_rest(by_object[number], error.message)

    def _write_content(self, wanted: list[RestoredFile]) -> None:
        """Begin to write files that lie in one object."""
        for chunk, pieces in chunks_of(self._pages, wanted):
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
        self._shut.close()

    def _write_links(self) -> None:
        for other in self._links.others():
            with self._told(other.path):
                self._write_link(other)

    def _write_link(self, other: OtherName) -> None:
        first = other.first
        if first.file is not None and first.file.failed:
            self._issue(other.path, "is another name of a file that was not restored")
        elif not (first.made and self._options.dry_run) and self._is_linked(other):
            self._report.unchanged += 1
        else:
            if self._options.dry_run:
                self._would(other.path, self._standing(other.directory, other.name))
            else:
                self._link(other)
            self._count_new()

    def _is_linked(self, other: OtherName) -> bool:
        here = self._standing(other.directory, other.name)
        there = self._standing(other.first.directory, other.first.name)
        return here is not None and there is not None and os.path.samestat(here, there)

    def _link(self, other: OtherName) -> None:
        first = other.first
        temporary = self._writer.temporary()
        with (
            self._target.at(other.directory) as parent,
            self._target.at(first.directory) as origin,
            passing(parent, temporary),
        ):
            os.link(first.name, temporary, src_dir_fd=origin, dst_dir_fd=parent, follow_symlinks=False)
            self._take_place(parent, temporary, other.name)

    def _take_place(self, parent: int, temporary: bytes, name: bytes) -> None:
        """Let what is complete take its place, also that of a directory that may go. Raises OSError."""
        self._writer.make_room(parent, name)
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)

    # --- everything else ----------------------------------------------------------------------------------------------

    def _other(self, number: int, path: bytes, name: bytes, row: Row, extras: Sequence[Extra]) -> None:
        make = maker_of(row, extras)
        if make is None:
            raise ArchiveDamagedError(f"an entry has the mode {row.mode:o}, which is of no kind")
        standing = self._standing(number, name)
        changed = self._options.overwrite == "changed"
        if self._links.has_first(row) and (changed or self._replace(row, standing)):
            self._links.add_other(row, number, name, path)
            return
        if changed and standing is not None and not self._links.parts(row, standing):
            with self._target.at(number) as parent:
                is_there = is_as_archived(parent, name, standing, row, extras, self._attributes)
            if is_there:
                self._report.unchanged += 1
                self._links.add_first(row, number, name, made=False)
                return
        if not self._replace(row, standing):
            self._report.unchanged += 1
            return
        if self._options.dry_run:
            self._links.add_first(row, number, name, made=True)
            self._would(path, standing)
            self._count_new()
            return
        temporary = self._writer.temporary()
        with self._target.at(number) as parent, passing(parent, temporary):
            make(temporary, parent)
            try:
                self._attributes.apply_to_made(parent, temporary, row, extras, lambda reason: self._issue(path, reason))
            finally:
                self._take_place(parent, temporary, name)
        self._links.add_first(row, number, name, made=True)
        self._count_new()

    def _delete_others(self) -> None:
        """Remove what the archive does not have from the directories that were restored."""
        for number, wanted in self._wanted.items():
            if self._target.fresh(number):
                continue
            interrupts.check()
            with self._told(self._target.path(number)), self._target.at(number) as parent:
                for name in [os.fsencode(entry) for entry in os.listdir(parent)]:
                    path = join(self._options.path, join(self._target.path(number), name))
                    if name in wanted or not self._wants(path, is_directory=False):
                        continue
                    if self._options.dry_run and self._on_entry is not None:
                        self._on_entry("-", path)
                    self._report.deleted += remove_tree(parent, name, dry_run=self._options.dry_run)
