"""Read-only file system of recovery points: what `cryo mount` shows, node by node.

`NodeTable` has the numbers of the nodes that the kernel knows. The folders above the recovery points (`MountFolder`)
are by resource and time, with links by time alone, by id, and `latest`.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from typing import NamedTuple, TypeVar

from cryostore.agent.archive.files import ArchiveFiles, ReadableFile
from cryostore.agent.archive.listing import ArchiveEntry
from cryostore.agent.archive.recovery_points import RecoveryPoint, completion_seconds, list_points, point_id
from cryostore.agent.archive.sparse_layout import listed_data_bytes
from cryostore.agent.block import Block, Extra, ExtraKind
from cryostore.agent.entry import Content, Row
from cryostore.agent.mount.archive_pool import ArchivePool, PooledFile
from cryostore.agent.mount.fuse_messages import NodeAttributes, device_number
from cryostore.agent.mount.fuse_session import ROOT, DirectoryItem, FoundNode
from cryostore.agent.source.walk import join
from cryostore.core.errors import CryostoreError
from cryostore.model.operation import Call

FOLDER_MODE = stat.S_IFDIR | 0o555
LINK_MODE = stat.S_IFLNK | 0o777
UNREADABLE_MODE = stat.S_IFDIR
DIRECTORY_BYTES = 4096
SECTOR_BYTES = 512
FOREVER_SECONDS = 86_400
"""How long the kernel may cache an entry of a recovery point, which never changes."""
SOON_SECONDS = 1
Got = TypeVar("Got")
REFRESH_SECONDS = 2.0
NAME_BYTES_MAX = 200


@dataclass(frozen=True, slots=True)
class MountLink:
    """A symlink to another path in the mount. `newest` is when the recovery point there was made."""

    target: bytes
    newest: float


@dataclass(slots=True)
class MountFolder:
    """A folder above the recovery points."""

    entries: dict[bytes, MountFolder | MountLink | RecoveryPoint] = field(default_factory=dict)
    newest: float = 0.0
    """When the newest recovery point below it was made."""

    def folder(self, name: bytes) -> MountFolder:
        """Return a subfolder, created if it does not exist."""
        found = self.entries.setdefault(name, MountFolder())
        assert isinstance(found, MountFolder)
        return found


Items = list[tuple[bytes, MountFolder | MountLink | RecoveryPoint]]


def build_folders(points: Iterable[RecoveryPoint]) -> MountFolder:
    """Return the top folder, with all folders down to the recovery points."""
    top = MountFolder()
    resources, times, ids = (top.folder(name) for name in (b"resources", b"times", b"ids"))
    names: dict[tuple[str, str], bytes] = {}
    for point in sorted(points, key=lambda each: (completion_seconds(each), each.recovery_point_arn or "")):
        resource = _folder_name(point, names, resources)
        inside = resources.folder(resource)
        made = point.creation_date or 0.0
        for folder in (top, resources, times, ids, inside):
            folder.newest = made
        moment = datetime.fromtimestamp(made, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
        name = _free_name(inside, moment)
        inside.entries[name] = point
        inside.entries[b"latest"] = MountLink(name, made)
        path = b"resources/" + resource + b"/" + name
        times.entries[_free_name(times, moment)] = MountLink(b"../" + path, made)
        ids.entries[point_id(point).encode()] = MountLink(b"../" + path, made)
        top.entries[b"latest"] = MountLink(path, made)
    return top


def _folder_name(point: RecoveryPoint, names: dict[tuple[str, str], bytes], resources: MountFolder) -> bytes:
    """Return the folder name of a resource: its name without slashes, with a suffix if that is not unique."""
    key = (point.backup_vault_name or "", point.resource_arn or "")
    if key not in names:
        text = (point.resource_name or point.resource_arn or "unnamed").replace("/", "_")
        name = text.encode("utf-8", "surrogateescape")[:NAME_BYTES_MAX]
        if name in (b".", b"..", b"") or name in resources.entries or len(text.encode()) > NAME_BYTES_MAX:
            name += b"~" + sha256("\0".join(key).encode()).hexdigest()[:8].encode()
        names[key] = name
    return names[key]


def _free_name(folder: MountFolder, name: bytes) -> bytes:
    found, number = name, 1
    while found in folder.entries:
        number += 1
        found = b"%s-%d" % (name, number)
    return found


class PointFolders:
    """The current folders, listed again if the last listing is REFRESH_SECONDS old. Thread safe."""

    def __init__(
        self, list_points: Callable[[], Iterable[RecoveryPoint]], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._list_points = list_points
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._top = MountFolder()
        self._listed = -REFRESH_SECONDS

    def find(self, path: bytes) -> MountFolder | MountLink | RecoveryPoint | None:
        """Return the item at a path that does not lead into a recovery point. Raises what the store raises."""
        with self._lock:
            if self._monotonic() - self._listed >= REFRESH_SECONDS or not self._top.entries:
                self._top = build_folders(self._list_points())
                self._listed = self._monotonic()
            found: MountFolder | MountLink | RecoveryPoint | None = self._top
        for name in path.split(b"/") if path else []:
            found = found.entries.get(name) if isinstance(found, MountFolder) else None
        return found


class NodeLocation(NamedTuple):
    """The location of a node: a path in the recovery point of this ARN or, without an ARN, in the folders above."""

    point: str
    path: bytes


class NodeTable:
    """Locations by node number, with look-up counts. Thread safe."""

    def __init__(self, root: NodeLocation) -> None:
        self._lock = threading.Lock()
        self._locations = {ROOT: root}
        self._numbers = {root: ROOT}
        self._counts = {ROOT: 1}
        self._next = ROOT + 1

    def __len__(self) -> int:
        return len(self._locations)

    def location(self, number: int) -> NodeLocation:
        """Return the location of a node. Raises FileNotFoundError if the kernel forgot it."""
        with self._lock:
            if (location := self._locations.get(number)) is None:
                raise FileNotFoundError(2, "no such node")
            return location

    def look_up(self, location: NodeLocation) -> int:
        """Return the number of a location, and count one more look-up."""
        with self._lock:
            number = self._numbers.get(location)
            if number is None:
                number, self._next = self._next, self._next + 1
                self._locations[number] = location
                self._numbers[location] = number
            self._counts[number] = self._counts.get(number, 0) + 1
            return number

    def forget(self, number: int, count: int) -> None:
        """Take back `count` look-ups; drop a location without look-ups."""
        with self._lock:
            if number == ROOT or number not in self._locations:
                return
            self._counts[number] -= count
            if self._counts[number] <= 0:
                del self._counts[number]
                del self._numbers[self._locations.pop(number)]


class RecoveryPointFileSystem:
    """Recovery points in folders, or one recovery point as the root. `close` closes all archives."""

    def __init__(self, call: Call, point: RecoveryPoint | None, vault: str | None, resource: str | None) -> None:
        self._archives = ArchivePool(call)
        self._folders = PointFolders(lambda: list_points(call, vault, resource))
        self._points = {point.recovery_point_arn or "": point} if point else {}
        self._nodes = NodeTable(NodeLocation((point.recovery_point_arn or "") if point else "", b""))
        self._handles: dict[int, PooledFile | _OpenDirectory] = {}
        self._numbers = itertools.count(1)
        self._uid, self._gid = os.geteuid(), os.getegid()

    def close(self) -> None:
        """Close all archives."""
        self._archives.close()

    # --- nodes --------------------------------------------------------------------------------------------------------

    def look_up(self, node: int, name: bytes) -> FoundNode | None:
        parent = self._nodes.location(node)
        if parent.point:
            path = join(parent.path, name)
            entry = self._run(parent.point, lambda files: files.tree.find(path))
            return None if entry is None else self.found(NodeLocation(parent.point, path), entry)
        path = join(parent.path, name)
        item = self._folders.find(path)
        if item is None:
            return None
        return self._found_in_folders(path, item)

    def found(self, location: NodeLocation, entry: ArchiveEntry) -> FoundNode:
        """Return the node of an entry of a recovery point, counted as looked up."""
        return FoundNode(self._nodes.look_up(location), attributes_of(location.point, entry), FOREVER_SECONDS)

    def _found_in_folders(self, path: bytes, item: MountFolder | MountLink | RecoveryPoint) -> FoundNode:
        if isinstance(item, MountFolder | MountLink):
            return FoundNode(
                self._nodes.look_up(NodeLocation("", path)), self._folder_attributes(path, item), SOON_SECONDS
            )
        arn = item.recovery_point_arn or ""
        self._points[arn] = item
        location = NodeLocation(arn, b"")
        try:
            return self.found(location, self._run(arn, lambda files: files.tree.root()))
        except CryostoreError:  # not an archive, or a damaged one: listed in its folder, but not readable
            attributes = NodeAttributes(inode_of(arn, b""), UNREADABLE_MODE, 0, 0, 0, 0, 1, self._uid, self._gid)
            return FoundNode(self._nodes.look_up(location), attributes, SOON_SECONDS)

    def _folder_attributes(self, path: bytes, item: MountFolder | MountLink) -> NodeAttributes:
        size = DIRECTORY_BYTES if isinstance(item, MountFolder) else len(item.target)
        mode = FOLDER_MODE if isinstance(item, MountFolder) else LINK_MODE
        made_ns = round(item.newest * 1000) * 1_000_000
        return NodeAttributes(inode_of("", path), mode, size, 0, made_ns, made_ns, 1, self._uid, self._gid)

    def forget(self, node: int, count: int) -> None:
        self._nodes.forget(node, count)

    def attributes(self, node: int) -> tuple[NodeAttributes, int]:
        location = self._nodes.location(node)
        if location.point:
            return attributes_of(location.point, self._entry(location)), FOREVER_SECONDS
        return self._folder_attributes(location.path, self._folder_or_link(location)), SOON_SECONDS

    def link_target(self, node: int) -> bytes:
        location = self._nodes.location(node)
        if not location.point:
            item = self._folder_or_link(location)
            target = item.target if isinstance(item, MountLink) else None
        else:
            target = _extra(self._entry(location).extras, ExtraKind.LINK_TARGET)
        if target is None:
            raise OSError(errno.EINVAL, "not a symlink")
        return target

    def xattrs(self, node: int) -> dict[bytes, bytes]:
        location = self._nodes.location(node)
        extras = self._entry(location).extras if location.point else []
        pairs = (extra.data.partition(b"\0") for extra in extras if extra.kind == ExtraKind.XATTR)
        return {name: value for name, _, value in pairs}

    def _entry(self, location: NodeLocation) -> ArchiveEntry:
        entry = self._run(location.point, lambda files: files.tree.find(location.path))
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, "no such entry")
        return entry

    def _folder_or_link(self, location: NodeLocation) -> MountFolder | MountLink:
        item = self._folders.find(location.path)
        if not isinstance(item, MountFolder | MountLink):
            raise FileNotFoundError(errno.ENOENT, "no such entry")
        return item

    def _run(self, point: str, work: Callable[[ArchiveFiles], Got]) -> Got:
        return self._archives.run(self._points[point], work)

    # --- open files and directories -----------------------------------------------------------------------------------

    def open(self, node: int) -> int:
        location = self._nodes.location(node)
        if not location.point:
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        entry = self._entry(location)
        if not entry.row.is_file:
            raise OSError(errno.EINVAL, "not a regular file")
        return self._handle(PooledFile(self._archives, self._points[location.point], entry))

    def read(self, handle: int, offset: int, length: int) -> bytes:
        return self._file(handle).read(offset, length)

    def seek(self, handle: int, offset: int, whence: int) -> int:
        return self._file(handle).run(lambda file: seek_data_or_hole(file, offset, whence))

    def open_directory(self, node: int) -> int:
        location = self._nodes.location(node)
        if location.point:
            blocks = self._run(location.point, lambda files: files.tree.directory(location.path))
            return self._handle(_OpenDirectory(location, blocks))
        item = self._folders.find(location.path)
        if not isinstance(item, MountFolder):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory")
        return self._handle(_OpenDirectory(location, [], list(item.entries.items())))

    def entries(self, handle: int, position: int) -> Iterator[DirectoryItem]:
        directory = self._handles[handle]
        assert isinstance(directory, _OpenDirectory)
        for number, name in enumerate((b".", b"..")):
            if position <= number:
                yield DirectoryItem(name, inode_of(directory.location.point, name), stat.S_IFDIR, None)
        skipped = max(position - 2, 0)
        if directory.location.point:
            yield from directory.listed(self, skipped)
            return
        for name, item in directory.items[skipped:]:
            path = join(directory.location.path, name)
            mode = LINK_MODE if isinstance(item, MountLink) else FOLDER_MODE
            # A recovery point's attributes would need its archive: a later look-up opens it.
            yield DirectoryItem(name, inode_of("", path), mode, None)

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
    """An open directory: of a recovery point its blocks, otherwise the items of a folder above them."""

    def __init__(self, location: NodeLocation, blocks: list[Block], items: Items | None = None) -> None:
        self.location = location
        self.items = items or []
        self._blocks = blocks

    def listed(self, mounted: RecoveryPointFileSystem, skipped: int) -> Iterator[DirectoryItem]:
        """Return the items after the first `skipped`."""
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
        location = NodeLocation(self.location.point, join(self.location.path, name))

        def found() -> FoundNode:
            return mounted.found(
                location, ArchiveEntry(location.path, row, Content.unpack(block.contents, index), extras)
            )

        return DirectoryItem(name, inode_of(location.point, location.path, row), row.mode, found)


def seek_data_or_hole(file: ReadableFile, offset: int, whence: int) -> int:
    """Return where the next data or hole begins, from an offset on. Raises OSError (ENXIO) beyond the end."""
    if not 0 <= offset < file.size or whence not in (os.SEEK_DATA, os.SEEK_HOLE):
        raise OSError(errno.ENXIO if offset >= 0 else errno.EINVAL, "beyond the end")
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
        raise OSError(errno.ENXIO, "only a hole up to the end")
    return min(at, file.size)


def inode_of(point: str, path: bytes, row: Row | None = None) -> int:
    """Return the inode number of an entry: the same for all names of one file in a recovery point."""
    key = path
    if row is not None and row.links > 1:
        key = b"%d/%d" % (row.device, row.inode)
    return int.from_bytes(blake2b(point.encode() + b"\0" + key, digest_size=8).digest(), "little") or 1


def attributes_of(point: str, entry: ArchiveEntry) -> NodeAttributes:
    """Return the attributes of an entry of a recovery point, as stat shows them."""
    row = entry.row
    size, blocks, device = row.size, 0, 0
    if row.is_file:
        blocks = -(-listed_data_bytes(entry) // SECTOR_BYTES)
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
