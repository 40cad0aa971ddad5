"""Files that are being restored: each is written under another name, completed, and then takes its place."""

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
from cryostore.agent.block import Extra, holes_of
from cryostore.agent.entry import Content, Row
from cryostore.agent.errors import DAMAGE
from cryostore.agent.report import Report
from cryostore.agent.restore.attributes import AttributeSetter, RefusedAttributes
from cryostore.agent.restore.name_collisions import CollisionGuard
from cryostore.agent.restore.target_directories import TargetDirectories
from cryostore.agent.source.walk import join
from cryostore.core import interrupts
from cryostore.core.digest import Buffer
from cryostore.core.errors import NO_SPACE_ERRNOS, StorageFullError
from cryostore.model.chunks import Chunk

FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
OLD_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
TARGET_FULL_HINT = "make room there, or restore to another place: what is complete stays, and the next run goes on"


@dataclass(slots=True, eq=False)
class RestoredFile:
    """A regular file on its way. `standing` is what stands in its place."""

    directory: int
    name: bytes
    row: Row
    content: Content
    extras: Sequence[Extra]
    standing: os.stat_result | None = None
    data_bytes: int = 0
    holes: list[tuple[int, int]] = field(default_factory=list)
    left: int = 0
    fd: int = -1
    temporary: bytes = b""
    """The name that it is written under."""
    failed: bool = False
    lock: threading.Lock | None = None

    def __post_init__(self) -> None:
        self.holes = holes_of(self.extras, self.row.size)
        self.data_bytes = self.left = self.row.size - sum(length for _, length in self.holes)

    @property
    def old(self) -> bool:
        """Whether a file stands in its place, whose bytes may serve again."""
        return self.standing is not None and stat.S_ISREG(self.standing.st_mode)

    def places(self, data_offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Where in the file, and how long, the parts of `length` bytes at `data_offset` of its data are."""
        if not self.holes:
            yield data_offset, length
            return
        for start, data_start, size in self._segments():
            skipped = max(data_offset - data_start, 0)
            part = min(size - skipped, length)
            if skipped < size and part > 0:
                yield start + skipped, part
                data_offset += part
                length -= part

    def _segments(self) -> Iterator[tuple[int, int, int]]:
        at = data = 0
        for offset, length in [*self.holes, (self.row.size, 0)]:
            if offset > at:
                yield at, data, offset - at
                data += offset - at
            at = offset + length


class FileWriter:
    """Writes the pieces of files, from several threads. Problems of the target are issues; a full one is the end."""

    def __init__(
        self,
        archive: Archive,
        target: TargetDirectories,
        places: CollisionGuard,
        attributes: AttributeSetter,
        refusals: RefusedAttributes,
        report: Report,
        lock: threading.Lock,
        prefix: bytes,
    ) -> None:
        self._archive = archive
        self._target = target
        self._places = places
        self._attributes = attributes
        self._refusals = refusals
        self._report = report
        self._lock = lock
        self._prefix = prefix
        self.target_name = target.name
        self._count = 0
        self._begun: set[RestoredFile] = set()

    def temporary(self) -> bytes:
        """A name that nothing has yet. For one thread alone."""
        self._count += 1
        return b"%s%x" % (self._prefix, self._count)

    def empty(self, files: Sequence[RestoredFile]) -> None:
        """Write files that need no bytes of the content."""
        self._whole([Piece(file, 0, 0, 0) for file in files], memoryview(b""))

    def chunk(self, chunk: Chunk, pieces: Sequence[Piece[RestoredFile]]) -> None:
        """Fetch a chunk and write all that is wanted of it. Raises what the store raises.

        A chunk that is damaged is an issue of each file that needs it: the others can still be restored.
        """
        if (
            len(pieces) == 1
            and pieces[0].wanted.old
            and pieces[0].length == chunk.length
            and self._reuse(chunk, pieces[0])
        ):
            return
        try:
            data = memoryview(self._archive.chunk_buffer(chunk))
        except DAMAGE as error:
            for piece in pieces:
                self._take_copy(piece, error.message)
            return
        for piece in pieces:
            if piece.wanted.lock is not None:
                self._part(piece.wanted, piece, data)
        self._whole([piece for piece in pieces if piece.wanted.lock is None], data)

    def _take_copy(self, piece: Piece[RestoredFile], reason: str) -> None:
        """Write a file whose chunk is damaged from a sound copy, or give it up if there is none."""
        copy = None if piece.wanted.lock else self._archive.copy(piece.wanted.content, piece.wanted.data_bytes)
        if copy is None:
            self.lose(piece.wanted, reason)
        else:
            self._whole([piece._replace(chunk_offset=0)], memoryview(copy))

    def _reuse(self, chunk: Chunk, piece: Piece[RestoredFile]) -> bool:
        """Take a chunk from the file that stands in the place of the restored one, if it is there."""
        file = piece.wanted
        places = list(file.places(piece.data_offset, piece.length))
        if len(places) != 1:
            return False
        try:
            with self._target.at(file.directory) as parent:
                fd = os.open(file.name, OLD_FLAGS, dir_fd=parent)
            try:
                if file.standing is None or not os.path.samestat(os.fstat(fd), file.standing):
                    return False
                data = os.pread(fd, chunk.length, places[0][0])
            finally:
                os.close(fd)
        except OSError:
            return False
        if len(data) != chunk.length or self._archive.chunk_id(data) != digest_of(chunk):
            return False
        if file.lock is None:
            self._whole([piece], memoryview(data))
        else:
            self._part(file, piece, memoryview(data))
        return True

    def _whole(self, pieces: Sequence[Piece[RestoredFile]], data: memoryview) -> None:
        """Write files of which a chunk has all the bytes, a directory at a time."""
        for directory, group in groupby(pieces, key=lambda piece: piece.wanted.directory):
            in_directory = list(group)
            try:
                with self._target.at(directory) as parent:
                    self._whole_in(parent, in_directory, data)
            except OSError as error:  # of the directory: those of a file are its guard's
                for piece in in_directory:
                    self.fail(piece.wanted, error)

    def _whole_in(self, parent: int, pieces: Sequence[Piece[RestoredFile]], data: memoryview) -> None:
        done: list[RestoredFile] = []
        try:
            for piece in pieces:
                interrupts.check_task()  # a thousand files may be left, each with a flush if it replaces one
                file = piece.wanted
                with self._guarded(file):
                    self._begin(file, parent)
                    if piece.length:
                        self._put(file, piece, data)
                    self._finish(file, parent)
                    done.append(file)
        finally:
            self._count_new(done)

    def _part(self, file: RestoredFile, piece: Piece[RestoredFile], data: memoryview) -> None:
        """Write a part of a file that needs several chunks; the last one completes it."""
        assert file.lock is not None
        with file.lock, self._guarded(file):
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
        for offset, length in file.places(piece.data_offset, piece.length):
            _pwrite_all(file.fd, data[start : start + length], offset)
            start += length

    def _begin(self, file: RestoredFile, parent: int) -> None:
        self._begun.add(file)  # first: whatever comes in between, the file is taken away
        file.fd = os.open(file.temporary, FLAGS, 0o600, dir_fd=parent)

    def _finish(self, file: RestoredFile, parent: int) -> None:
        if file.holes:
            os.ftruncate(file.fd, file.row.size)
        plain = self._target.plain(file.directory)
        self._attributes.apply(
            file.fd,
            file.row,
            file.extras,
            lambda kind, reason: self._refusals.note(self._path(file), kind, reason),
            is_plain=plain,
        )
        if file.old:
            os.fsync(file.fd)  # or a loss of power could leave neither this one nor the one before
        fd, file.fd = file.fd, -1
        os.close(fd)
        self._places.take(file.directory, parent, file.temporary, file.name, file.standing)
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

    def _guarded(self, file: RestoredFile) -> _Guard:
        return _Guard(self, file)

    def fail(self, file: RestoredFile, error: OSError) -> None:
        """Give a file up: what was written of it goes, what stood in its place stays."""
        self._give_up(file)
        self._issue(file, error.strerror or str(error))

    def lose(self, file: RestoredFile, reason: str) -> None:
        """Give a file up whose content is damaged."""
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
        """Take away what was begun and not completed. Nothing else may be under way any more."""
        for file in list(self._begun):
            self._give_up(file)


class _Guard:
    """Around all that is done to a file of the target: what fails is that file's issue; a full target is raised."""

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
    """The error of a target without space."""
    return StorageFullError.of_disk(f"target {os.path.abspath(name)!a}", hint=TARGET_FULL_HINT)


def _pwrite_all(fd: int, data: Buffer, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written
