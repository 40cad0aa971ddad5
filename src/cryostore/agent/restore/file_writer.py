"""Writer of regular files: each is written under a temporary name, given its attributes, and renamed into place.

`tree_restore` decides which files are written; this module writes their chunks, from several threads. Holes are not
written: see `sparse_files`.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import groupby

from cryostore.agent.archive.pieces import Piece
from cryostore.agent.archive.reader import Archive, digest_of
from cryostore.agent.archive.sparse_layout import data_bytes_of, file_ranges
from cryostore.agent.block import Extra, holes_of
from cryostore.agent.entry import Content, Row
from cryostore.agent.errors import DAMAGE
from cryostore.agent.report import Report
from cryostore.agent.restore.attributes import AttributeSetter, RefusedAttributes
from cryostore.agent.restore.name_collisions import CollisionGuard
from cryostore.agent.restore.sparse_files import pwrite_all
from cryostore.agent.restore.target_directories import TargetDirectories
from cryostore.agent.source.walk import join
from cryostore.core import interrupts
from cryostore.core.errors import NO_SPACE_ERRNOS, StorageFullError
from cryostore.model.chunks import Chunk

FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
OLD_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
TARGET_FULL_HINT = "free space there, or restore to another target: complete files stay, and the next run continues"


@dataclass(slots=True, eq=False)
class RestoredFile:
    """A regular file to write. `existing` is the status of the entry that it replaces."""

    directory: int
    name: bytes
    row: Row
    content: Content
    extras: Sequence[Extra]
    existing: os.stat_result | None = None
    data_bytes: int = 0
    holes: list[tuple[int, int]] = field(default_factory=list)
    left: int = 0
    fd: int = -1
    temporary: bytes = b""
    """The name that the file is written under."""
    failed: bool = False
    lock: threading.Lock | None = None

    def __post_init__(self) -> None:
        self.holes = holes_of(self.extras, self.row.size)
        self.data_bytes = self.left = data_bytes_of(self.row.size, self.holes)

    @property
    def old(self) -> bool:
        """Whether the existing entry is a regular file, whose chunks may be reused."""
        return self.existing is not None and stat.S_ISREG(self.existing.st_mode)

    def ranges(self, data_offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Return offset and length, in the file, of the parts that `length` bytes at `data_offset` of its data fill."""
        return file_ranges(self.row.size, self.holes, data_offset, length)


class FileWriter:
    """Writes the pieces of files, from several threads. Errors of a file are issues; a full target ends the run."""

    def __init__(
        self,
        archive: Archive,
        target: TargetDirectories,
        guard: CollisionGuard,
        attributes: AttributeSetter,
        refusals: RefusedAttributes,
        report: Report,
        lock: threading.Lock,
        prefix: bytes,
    ) -> None:
        self._archive = archive
        self._target = target
        self._guard = guard
        self._attributes = attributes
        self._refusals = refusals
        self._report = report
        self._lock = lock
        self._prefix = prefix
        self.target_name = target.name
        self._count = 0
        self._begun: set[RestoredFile] = set()

    def new_temporary_name(self) -> bytes:
        """Return a new temporary name. For one thread."""
        self._count += 1
        return b"%s%x" % (self._prefix, self._count)

    def write_empty(self, files: Sequence[RestoredFile]) -> None:
        """Write files that need no content."""
        self._write_small([Piece(file, 0, 0, 0) for file in files], memoryview(b""))

    def write_chunk(self, chunk: Chunk, pieces: Sequence[Piece[RestoredFile]]) -> None:
        """Fetch a chunk and write all pieces of it. Raises what the store raises.

        A damaged chunk is an issue of each file that needs it; the other files can still be restored.
        """
        if (
            len(pieces) == 1
            and pieces[0].file.old
            and pieces[0].length == chunk.length
            and self._reuse(chunk, pieces[0])
        ):
            return
        try:
            data = memoryview(self._archive.chunk_buffer(chunk))
        except DAMAGE as error:
            for piece in pieces:
                self._write_copy(piece, error.message)
            return
        for piece in pieces:
            if piece.file.lock is not None:
                self._write_part(piece.file, piece, data)
        self._write_small([piece for piece in pieces if piece.file.lock is None], data)

    def _write_copy(self, piece: Piece[RestoredFile], reason: str) -> None:
        """Write a file whose chunk is damaged from a sound copy; give the file up if there is none."""
        copy = None if piece.file.lock else self._archive.sound_copy(piece.file.content, piece.file.data_bytes)
        if copy is None:
            self.lose(piece.file, reason)
        else:
            self._write_small([piece._replace(chunk_offset=0)], memoryview(copy))

    def _reuse(self, chunk: Chunk, piece: Piece[RestoredFile]) -> bool:
        """Take a chunk from the existing file, if that has it at the same offset; return whether it has."""
        file = piece.file
        ranges = list(file.ranges(piece.data_offset, piece.length))
        if len(ranges) != 1:
            return False
        try:
            with self._target.at(file.directory) as parent:
                fd = os.open(file.name, OLD_FLAGS, dir_fd=parent)
            try:
                if file.existing is None or not os.path.samestat(os.fstat(fd), file.existing):
                    return False
                data = os.pread(fd, chunk.length, ranges[0][0])
            finally:
                os.close(fd)
        except OSError:
            return False
        if len(data) != chunk.length or self._archive.chunk_id(data) != digest_of(chunk):
            return False
        if file.lock is None:
            self._write_small([piece], memoryview(data))
        else:
            self._write_part(file, piece, memoryview(data))
        return True

    def _write_small(self, pieces: Sequence[Piece[RestoredFile]], data: memoryview) -> None:
        """Write files whose bytes all lie in one chunk, directory by directory."""
        for directory, group in groupby(pieces, key=lambda piece: piece.file.directory):
            in_directory = list(group)
            try:
                with self._target.at(directory) as parent:
                    self._write_small_in(parent, in_directory, data)
            except OSError as error:  # of the directory; `_FileErrors` handles those of a file
                for piece in in_directory:
                    self.fail(piece.file, error)

    def _write_small_in(self, parent: int, pieces: Sequence[Piece[RestoredFile]], data: memoryview) -> None:
        done: list[RestoredFile] = []
        try:
            for piece in pieces:
                interrupts.check_task()  # there may be a thousand files, each with a flush if it replaces another
                file = piece.file
                with self._errors_of(file):
                    self._begin(file, parent)
                    if piece.length:
                        self._put(file, piece, data)
                    self._finish(file, parent)
                    done.append(file)
        finally:
            self._count_new(done)

    def _write_part(self, file: RestoredFile, piece: Piece[RestoredFile], data: memoryview) -> None:
        """Write a part of a file that needs several chunks; the last part completes the file."""
        assert file.lock is not None
        with file.lock, self._errors_of(file):
            if file.failed:
                return
            if file.fd < 0:
                with self._target.at(file.directory) as parent:
                    self._begin(file, parent)
            self._put(file, piece, data)
            file.left -= piece.length
            with self._lock:
                self._report.done_bytes += piece.length
            if not file.left:
                with self._target.at(file.directory) as parent:
                    self._finish(file, parent)
                self._count_new([file])

    def _put(self, file: RestoredFile, piece: Piece[RestoredFile], data: memoryview) -> None:
        start = piece.chunk_offset
        for offset, length in file.ranges(piece.data_offset, piece.length):
            pwrite_all(file.fd, data[start : start + length], offset)
            start += length

    def _begin(self, file: RestoredFile, parent: int) -> None:
        self._begun.add(file)  # first, so that an interrupt in between still removes the file
        file.fd = os.open(file.temporary, FLAGS, 0o600, dir_fd=parent)

    def _finish(self, file: RestoredFile, parent: int) -> None:
        if file.holes:
            os.ftruncate(file.fd, file.row.size)
        self._attributes.apply(
            file.fd,
            file.row,
            file.extras,
            lambda kind, reason: self._refusals.note(self._path(file), kind, reason),
            inherited_nothing=self._target.passes_nothing_on(file.directory),
        )
        if file.old:
            os.fsync(file.fd)  # otherwise a power loss could leave neither the new nor the old file
        fd, file.fd = file.fd, -1
        os.close(fd)
        self._guard.rename_into_place(file.directory, parent, file.temporary, file.name, file.existing)
        file.left = 0
        self._begun.discard(file)

    def _count_new(self, files: Sequence[RestoredFile]) -> None:
        with self._lock:
            self._report.new += len(files)
            self._report.new_bytes += sum(file.row.size for file in files)
            self._report.done_bytes += sum(
                file.row.size - (file.data_bytes if file.lock is not None else 0) for file in files
            )

    def _issue(self, file: RestoredFile, reason: str) -> None:
        with self._lock:
            self._report.issue(self._path(file), reason)

    def _path(self, file: RestoredFile) -> bytes:
        return join(self._target.path(file.directory), file.name)

    def _errors_of(self, file: RestoredFile) -> _FileErrors:
        return _FileErrors(self, file)

    def fail(self, file: RestoredFile, error: OSError) -> None:
        """Give up a file after an error: remove its temporary file; the existing entry stays."""
        self._give_up(file)
        self._issue(file, error.strerror or str(error))

    def lose(self, file: RestoredFile, reason: str) -> None:
        """Give up a file whose content is damaged."""
        with file.lock or nullcontext():
            if not file.failed:
                self._give_up(file)
                self._issue(file, reason)

    def _give_up(self, file: RestoredFile) -> None:
        file.failed = True
        if file not in self._begun:
            return
        self._begun.discard(file)
        with suppress(OSError):
            if file.fd >= 0:
                os.close(file.fd)
            file.fd = -1
            with self._target.at(file.directory) as parent:
                os.unlink(file.temporary, dir_fd=parent)

    def abandon(self) -> None:
        """Remove the temporary files of incomplete files. No other thread may be writing."""
        for file in list(self._begun):
            self._give_up(file)


class _FileErrors:
    """Context for all calls on one target file: an OSError becomes an issue of that file; a full target is raised."""

    def __init__(self, writer: FileWriter, file: RestoredFile) -> None:
        self._writer = writer
        self._file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, OSError):
            return False
        self._writer.fail(self._file, error)
        if error.errno in NO_SPACE_ERRNOS:
            raise full_target(self._writer.target_name) from error
        return True


def full_target(name: str) -> StorageFullError:
    """Return the error for a full target."""
    return StorageFullError.of_disk(f"target {os.path.abspath(name)!a}", hint=TARGET_FULL_HINT)
