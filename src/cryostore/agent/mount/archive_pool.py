"""Pool of open archives: opened at the first access, and the most recently used ones stay open."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from cryostore.agent.archive.chunks import ChunkCache
from cryostore.agent.archive.files import ArchiveFiles, ReadableFile
from cryostore.agent.archive.listing import ArchiveEntry
from cryostore.agent.archive.open_archive import open_archive
from cryostore.agent.archive.recovery_points import RecoveryPoint
from cryostore.model.errors import ResourceNotFoundException
from cryostore.model.operation import Call

OPEN_MAX = 16
Got = TypeVar("Got")


class _OpenArchive:
    """An open archive, with the number of its users."""

    def __init__(self, files: ArchiveFiles, stack: ExitStack) -> None:
        self.files = files
        self.stack = stack
        self.users = 0
        self.dropped = False


class ArchivePool:
    """Open archives of recovery points, at most `open_max` of them while unused. Thread safe. `close` closes all."""

    def __init__(self, call: Call, open_max: int = OPEN_MAX) -> None:
        self.call = call
        self._open_max = open_max
        self._cache = ChunkCache()
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._open: OrderedDict[str, _OpenArchive] = OrderedDict()

    def close(self) -> None:
        """Close all archives."""
        with self._lock:
            held, self._open = list(self._open.values()), OrderedDict()
        for each in held:
            each.stack.close()
        self._cache.close()

    def run(self, point: RecoveryPoint, work: Callable[[ArchiveFiles], Got]) -> Got:
        """Call `work` with the files of a recovery point and return its result.

        The store ends a restore job that reads nothing for a long time. Then the archive is opened again, and `work` is
        called a second time.
        """
        held = self._acquire(point)
        try:
            return work(held.files)
        except ResourceNotFoundException:
            self._drop(point, held)
        finally:
            self._release(held)
        held = self._acquire(point)
        try:
            return work(held.files)
        finally:
            self._release(held)

    def _acquire(self, point: RecoveryPoint) -> _OpenArchive:
        name = point.recovery_point_arn or ""
        if (held := self._use(name)) is not None:
            return held
        with self._opening:
            if (held := self._use(name)) is not None:
                return held
            stack = ExitStack()
            archive = stack.enter_context(open_archive(self.call, point, "mount"))
            held = _OpenArchive(ArchiveFiles(archive, self._cache), stack)
            held.users = 1
            with self._lock:
                self._open[name] = held
                closing = self._idle_beyond_limit()
        for each in closing:
            each.stack.close()
        return held

    def _use(self, name: str) -> _OpenArchive | None:
        with self._lock:
            held = self._open.get(name)
            if held is not None:
                held.users += 1
                self._open.move_to_end(name)
            return held

    def _idle_beyond_limit(self) -> list[_OpenArchive]:
        closing = [name for name, held in self._open.items() if not held.users][
            : max(len(self._open) - self._open_max, 0)
        ]
        return [self._open.pop(name) for name in closing]

    def _release(self, held: _OpenArchive) -> None:
        with self._lock:
            held.users -= 1
            end = held.dropped and not held.users
        if end:
            held.stack.close()

    def _drop(self, point: RecoveryPoint, held: _OpenArchive) -> None:
        """Remove an archive from the pool; its last user closes it."""
        with self._lock:
            if self._open.get(point.recovery_point_arn or "") is held:
                del self._open[point.recovery_point_arn or ""]
                held.dropped = True


class PooledFile:
    """A file that stays open for long: its content is looked up again if its archive is opened again."""

    def __init__(self, points: ArchivePool, point: RecoveryPoint, entry: ArchiveEntry) -> None:
        self.size = entry.row.size
        self._points = points
        self._point = point
        self._entry = entry
        self._lock = threading.Lock()
        self._of: ArchiveFiles | None = None
        self._readable: ReadableFile | None = None

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes as ReadableFile does."""
        return self.run(lambda file: file.read(offset, length))

    def run(self, work: Callable[[ReadableFile], Got]) -> Got:
        """Call `work` with the content and return its result. See `ArchivePool.run`."""
        return self._points.run(self._point, lambda files: work(self._by(files)))

    def _by(self, files: ArchiveFiles) -> ReadableFile:
        with self._lock:
            if self._readable is None or self._of is not files:
                self._readable, self._of = files.open(self._entry), files
            return self._readable
