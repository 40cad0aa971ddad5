"""Folders above the recovery points of a mount: by resource and time; links by time alone, by id, and `latest`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

from cryostore.agent.archive.recovery_points import RecoveryPoint, completion_seconds, point_id

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
