"""Recovery points as a file system that is only read: what `cryo mount` shows, node by node."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import TypeVar

from cryostore.agent.archive.diff import data_bytes
from cryostore.agent.archive.files import ArchiveFiles, ReadableFile
from cryostore.agent.archive.listing import ArchiveEntry
from cryostore.agent.archive.recovery_points import RecoveryPoint, list_points
from cryostore.agent.block import Block, Extra, ExtraKind
from cryostore.agent.entry import Content, Row
from cryostore.agent.mount.archive_pool import ArchivePool, PooledFile
from cryostore.agent.mount.fuse_messages import NodeAttributes, device_number
from cryostore.agent.mount.fuse_session import DirectoryItem, FoundNode
from cryostore.agent.mount.node_table import NodeLocation, NodeTable
from cryostore.agent.mount.point_folders import MountFolder, MountLink, PointFolders
from cryostore.agent.source.walk import join
from cryostore.core.errors import CryostoreError
from cryostore.model.operation import Call

FOLDER_MODE = stat.S_IFDIR | 0o555
LINK_MODE = stat.S_IFLNK | 0o777
UNREADABLE_MODE = stat.S_IFDIR
DIRECTORY_BYTES = 4096
SECTOR_BYTES = 512
FOREVER_SECONDS = 86_400
"""How long the kernel may believe what a recovery point says: nothing in it changes."""
SOON_SECONDS = 1
Got = TypeVar("Got")
Above = list[tuple[bytes, MountFolder | MountLink | RecoveryPoint]]


class RecoveryPointFileSystem:
    """Recovery points by folders, or one alone as the root. `close` ends all of it."""

    def __init__(self, call: Call, point: RecoveryPoint | None, vault: str | None, resource: str | None) -> None:
        self._open_points = ArchivePool(call)
        self._folders = PointFolders(lambda: list_points(call, vault, resource))
        self._points = {point.recovery_point_arn or "": point} if point else {}
        self._nodes = NodeTable(NodeLocation((point.recovery_point_arn or "") if point else "", b""))
        self._handles: dict[int, PooledFile | _OpenDirectory] = {}
        self._numbers = itertools.count(1)
        self._uid, self._gid = os.geteuid(), os.getegid()

    def close(self) -> None:
        """Close all archives."""
        self._open_points.close()

    # --- nodes --------------------------------------------------------------------------------------------------------

    def look_up(self, node: int, name: bytes) -> FoundNode | None:
        parent = self._nodes.place(node)
        if parent.point:
            path = join(parent.path, name)
            entry = self._run(parent.point, lambda files: files.tree.find(path))
            return None if entry is None else self.found(NodeLocation(parent.point, path), entry)
        path = join(parent.path, name)
        what = self._folders.find(path)
        if what is None:
            return None
        return self._found_above(path, what)

    def found(self, place: NodeLocation, entry: ArchiveEntry) -> FoundNode:
        """An entry of a recovery point, counted as looked up."""
        return FoundNode(self._nodes.look_up(place), attributes_of(place.point, entry), FOREVER_SECONDS)

    def _found_above(self, path: bytes, what: MountFolder | MountLink | RecoveryPoint) -> FoundNode:
        if isinstance(what, MountFolder | MountLink):
            return FoundNode(self._nodes.look_up(NodeLocation("", path)), self._above(path, what), SOON_SECONDS)
        arn = what.recovery_point_arn or ""
        self._points[arn] = what
        place = NodeLocation(arn, b"")
        try:
            return self.found(place, self._run(arn, lambda files: files.tree.root()))
        except CryostoreError:  # no archive, or a damaged one: it stands in its folder, and nobody gets in
            attributes = NodeAttributes(inode_of(arn, b""), UNREADABLE_MODE, 0, 0, 0, 0, 1, self._uid, self._gid)
            return FoundNode(self._nodes.look_up(place), attributes, SOON_SECONDS)

    def _above(self, path: bytes, what: MountFolder | MountLink) -> NodeAttributes:
        size = DIRECTORY_BYTES if isinstance(what, MountFolder) else len(what.target)
        mode = FOLDER_MODE if isinstance(what, MountFolder) else LINK_MODE
        made_ns = round(what.newest * 1000) * 1_000_000
        return NodeAttributes(inode_of("", path), mode, size, 0, made_ns, made_ns, 1, self._uid, self._gid)

    def forget(self, node: int, count: int) -> None:
        self._nodes.forget(node, count)

    def attributes(self, node: int) -> tuple[NodeAttributes, int]:
        place = self._nodes.place(node)
        if place.point:
            return attributes_of(place.point, self._entry(place)), FOREVER_SECONDS
        return self._above(place.path, self._folder_or_link(place)), SOON_SECONDS

    def link_target(self, node: int) -> bytes:
        place = self._nodes.place(node)
        if not place.point:
            what = self._folder_or_link(place)
            target = what.target if isinstance(what, MountLink) else None
        else:
            target = _extra(self._entry(place).extras, ExtraKind.LINK_TARGET)
        if target is None:
            raise OSError(errno.EINVAL, "no symlink")
        return target

    def xattrs(self, node: int) -> dict[bytes, bytes]:
        place = self._nodes.place(node)
        extras = self._entry(place).extras if place.point else []
        pairs = (extra.data.partition(b"\0") for extra in extras if extra.kind == ExtraKind.XATTR)
        return {name: value for name, _, value in pairs}

    def _entry(self, place: NodeLocation) -> ArchiveEntry:
        entry = self._run(place.point, lambda files: files.tree.find(place.path))
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, "no such entry")
        return entry

    def _folder_or_link(self, place: NodeLocation) -> MountFolder | MountLink:
        what = self._folders.find(place.path)
        if not isinstance(what, MountFolder | MountLink):
            raise FileNotFoundError(errno.ENOENT, "no such entry")
        return what

    def _run(self, point: str, work: Callable[[ArchiveFiles], Got]) -> Got:
        return self._open_points.run(self._points[point], work)

    # --- what is open -------------------------------------------------------------------------------------------------

    def open(self, node: int) -> int:
        place = self._nodes.place(node)
        if not place.point:
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        entry = self._entry(place)
        if not entry.row.is_file:
            raise OSError(errno.EINVAL, "no regular file")
        return self._handle(PooledFile(self._open_points, self._points[place.point], entry))

    def read(self, handle: int, offset: int, length: int) -> bytes:
        return self._file(handle).read(offset, length)

    def seek(self, handle: int, offset: int, whence: int) -> int:
        return self._file(handle).run(lambda file: seek_data_or_hole(file, offset, whence))

    def open_directory(self, node: int) -> int:
        place = self._nodes.place(node)
        if place.point:
            blocks = self._run(place.point, lambda files: files.tree.directory(place.path))
            return self._handle(_OpenDirectory(place, blocks))
        what = self._folders.find(place.path)
        if not isinstance(what, MountFolder):
            raise NotADirectoryError(errno.ENOTDIR, "no directory")
        return self._handle(_OpenDirectory(place, [], list(what.entries.items())))

    def entries(self, handle: int, position: int) -> Iterator[DirectoryItem]:
        directory = self._handles[handle]
        assert isinstance(directory, _OpenDirectory)
        for number, name in enumerate((b".", b"..")):
            if position <= number:
                yield DirectoryItem(name, inode_of(directory.place.point, name), stat.S_IFDIR, None)
        skipped = max(position - 2, 0)
        if directory.place.point:
            yield from directory.listed(self, skipped)
            return
        for name, what in directory.above[skipped:]:
            path = join(directory.place.path, name)
            mode = LINK_MODE if isinstance(what, MountLink) else FOLDER_MODE
            yield DirectoryItem(name, inode_of("", path), mode, None)  # who wants to know more opens the point

    def release(self, handle: int) -> None:
        self._handles.pop(handle, None)

    def _handle(self, opened: PooledFile | _OpenDirectory) -> int:
        number = next(self._numbers)
        self._handles[number] = opened
        return number

    def _file(self, handle: int) -> PooledFile:
        opened = self._handles[handle]
        assert isinstance(opened, PooledFile)
        return opened


class _OpenDirectory:
    """A directory that is open: of a recovery point its blocks, else the entries of its folder."""

    def __init__(self, place: NodeLocation, blocks: list[Block], above: Above | None = None) -> None:
        self.place = place
        self.above = above or []
        self._blocks = blocks

    def listed(self, mounted: RecoveryPointFileSystem, skipped: int) -> Iterator[DirectoryItem]:
        """The entries behind the first `skipped`."""
        for block in self._blocks:
            if skipped >= block.entries:
                skipped -= block.entries
                continue
            extras = block.extras_of() if block.extras else {}
            names = block.name_list()
            for index in range(skipped, block.entries):
                yield self._listed(mounted, block, names[index], index, extras.get(index, []))
            skipped = 0

    def _listed(
        self, mounted: RecoveryPointFileSystem, block: Block, name: bytes, index: int, extras: list[Extra]
    ) -> DirectoryItem:
        row = Row.unpack(block.rows, index)
        place = NodeLocation(self.place.point, join(self.place.path, name))

        def found() -> FoundNode:
            return mounted.found(place, ArchiveEntry(place.path, row, Content.unpack(block.contents, index), extras))

        return DirectoryItem(name, inode_of(place.point, place.path, row), row.mode, found)


def seek_data_or_hole(file: ReadableFile, offset: int, whence: int) -> int:
    """Where data or a hole begins, from an offset on. Raises OSError (ENXIO) behind the end."""
    if not 0 <= offset < file.size or whence not in (os.SEEK_DATA, os.SEEK_HOLE):
        raise OSError(errno.ENXIO if offset >= 0 else errno.EINVAL, "nothing there")
    at = offset
    for start, length in file.segments():
        if start + length <= at:
            continue
        if whence == os.SEEK_DATA:
            return max(start, at)
        if start > at:
            return at
        at = start + length
    if whence == os.SEEK_DATA:
        raise OSError(errno.ENXIO, "nothing but a hole")
    return min(at, file.size)


def inode_of(point: str, path: bytes, row: Row | None = None) -> int:
    """The inode number of an entry, the same for all names of one file in a recovery point."""
    key = path
    if row is not None and row.links > 1:
        key = b"%d/%d" % (row.device, row.inode)
    return int.from_bytes(blake2b(point.encode() + b"\0" + key, digest_size=8).digest(), "little") or 1


def attributes_of(point: str, entry: ArchiveEntry) -> NodeAttributes:
    """What stat says of an entry of a recovery point."""
    row = entry.row
    size, blocks, device = row.size, 0, 0
    if row.is_file:
        blocks = -(-data_bytes(entry) // SECTOR_BYTES)
    elif row.is_directory:
        size = DIRECTORY_BYTES
    elif stat.S_ISLNK(row.mode):
        size = len(_extra(entry.extras, ExtraKind.LINK_TARGET) or b"")
    elif (number := _extra(entry.extras, ExtraKind.DEVICE_NUMBER)) is not None and len(number) == 8:
        device = device_number(int.from_bytes(number[:4], "little"), int.from_bytes(number[4:], "little"))
    return NodeAttributes(
        inode_of(point, entry.path, row),
        row.mode,
        size,
        blocks,
        row.mtime_ns,
        row.ctime_ns or row.mtime_ns,
        row.links or 1,
        row.uid,
        row.gid,
        device,
    )


def _extra(extras: list[Extra], kind: ExtraKind) -> bytes | None:
    return next((extra.data for extra in extras if extra.kind == kind), None)
