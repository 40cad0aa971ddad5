"""The archives of recovery points, opened when something in them is wanted: the last used of them stay open."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from cryostore.agent.archive.chunk_cache import ChunkCache
from cryostore.agent.archive.files import ArchiveFiles, ReadableFile
from cryostore.agent.archive.listing import ArchiveEntry
from cryostore.agent.archive.open_archive import open_archive
from cryostore.agent.archive.recovery_points import RecoveryPoint
from cryostore.model.errors import ResourceNotFoundException
from cryostore.model.operation import Call

OPEN_MAX = 16
Got = TypeVar("Got")


class _Opened:
    """An archive that is open, and how many are using it."""

    def __init__(self, files: ArchiveFiles, stack: ExitStack) -> None:
        self.files = files
        self.stack = stack
        self.users = 0
        self.dropped = False


class ArchivePool:
    """Thread safe. `close` ends all of it."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._cache = ChunkCache()
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._open: OrderedDict[str, _Opened] = OrderedDict()

    def close(self) -> None:
        """Close all archives."""
        with self._lock:
            held, self._open = list(self._open.values()), OrderedDict()
        for each in held:
            each.stack.close()
        self._cache.close()

    def run(self, point: RecoveryPoint, work: Callable[[ArchiveFiles], Got]) -> Got:
        """Do something with the files of a recovery point.

        The store ends what nothing was read from for long: then the point is opened anew, and `work` done once more.
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

    def _acquire(self, point: RecoveryPoint) -> _Opened:
        name = point.recovery_point_arn or ""
        if (held := self._use(name)) is not None:
            return held
        with self._opening:
            if (held := self._use(name)) is not None:
                return held
            stack = ExitStack()
            archive = stack.enter_context(open_archive(self.call, point, "mount"))
            held = _Opened(ArchiveFiles(archive, self._cache), stack)
            held.users = 1
            with self._lock:
                self._open[name] = held
                going = self._surplus()
        for each in going:
            each.stack.close()
        return held

    def _use(self, name: str) -> _Opened | None:
        with self._lock:
            held = self._open.get(name)
            if held is not None:
                held.users += 1
                self._open.move_to_end(name)
            return held

    def _surplus(self) -> list[_Opened]:
        going = [name for name, held in self._open.items() if not held.users][: max(len(self._open) - OPEN_MAX, 0)]
        return [self._open.pop(name) for name in going]

    def _release(self, held: _Opened) -> None:
        with self._lock:
            held.users -= 1
            end = held.dropped and not held.users
        if end:
            held.stack.close()

    def _drop(self, point: RecoveryPoint, held: _Opened) -> None:
        """Take an archive out of use; it is closed when the last that uses it has done."""
        with self._lock:
            if self._open.get(point.recovery_point_arn or "") is held:
                del self._open[point.recovery_point_arn or ""]
                held.dropped = True


class PooledFile:
    """A file of a recovery point that is read for long: its content is looked up again if the point is opened anew."""

    def __init__(self, points: ArchivePool, point: RecoveryPoint, entry: ArchiveEntry) -> None:
        self.size = entry.row.size
        self._points = points
        self._point = point
        self._entry = entry
        self._lock = threading.Lock()
        self._of: ArchiveFiles | None = None
        self._readable: ReadableFile | None = None

    def read(self, offset: int, length: int) -> bytes:
        """As Readable."""
        return self.run(lambda file: file.read(offset, length))

    def run(self, work: Callable[[ReadableFile], Got]) -> Got:
        """Do something with the content. See `OpenPoints.run`."""
        return self._points.run(self._point, lambda files: work(self._by(files)))

    def _by(self, files: ArchiveFiles) -> ReadableFile:
        with self._lock:
            if self._readable is None or self._of is not files:
                self._readable, self._of = files.open(self._entry), files
            return self._readable
