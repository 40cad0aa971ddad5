"""Checks of a data directory: permissions, file system, free space, keyring and its copy, commits.

The file system of a path comes from the kernel's mount table (`mount_of`).
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from cryostore.catalog import open_catalog
from cryostore.chunks.blobs import open_blobs
from cryostore.chunks.disk_reserve import FILE as RESERVE_FILE
from cryostore.core.errors import CryostoreError
from cryostore.core.limits import MIB
from cryostore.core.quantities import size_text
from cryostore.maintenance.diagnosis import Diagnoses, Diagnosis, error, failed, ok, warning
from cryostore.maintenance.diagnosis.catalog import check_commits
from cryostore.maintenance.diagnosis.keyring import check_keyring, check_keyring_copy
from cryostore.service.opening.keyring import existing_keyring
from cryostore.service.opening.open import CATALOG

NETWORK_FILE_SYSTEMS = {
    "9p",
    "afs",
    "ceph",
    "cifs",
    "glusterfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
    "virtiofs",
}
TEMPORARY_FILE_SYSTEMS = {"overlay", "ramfs", "rootfs", "squashfs", "tmpfs"}
FOREIGN_FILE_SYSTEMS = {"exfat", "fat", "hfs", "hfsplus", "msdos", "ntfs", "ntfs3", "vfat"}
UNSAFE_MOUNT_OPTIONS = {"nobarrier", "barrier=0"}
FREE_SHARE_MIN = 0.1
RESERVE_BYTES = 64 * MIB
MOUNT_TABLE = Path("/proc/self/mounts")


def check_directory(data_dir: Path, keyring: str | None, copy: Path | None) -> Diagnoses:
    """Check a data directory without opening its service, which would upgrade it.

    `keyring` is the option of that name; `copy` is a copy of the keyring to compare with it.
    """
    if not (data_dir / CATALOG).exists():
        yield error("data directory", f"{data_dir} holds no store", "`cryo backup --data-dir` makes one")
        return
    yield _permissions(data_dir)
    yield _file_system(mount_of(data_dir))
    yield _free_space(data_dir)
    yield from _keyring(data_dir, keyring, copy)
    yield from _commits(data_dir, keyring)


def _permissions(data_dir: Path) -> Diagnosis:
    status = data_dir.stat()
    mode = status.st_mode & 0o777
    if mode & 0o077:
        return warning("data directory", f"others may enter {data_dir} (mode {mode:04o})", f"chmod 700 {data_dir}")
    if status.st_uid != os.geteuid():
        return warning(
            "data directory",
            f"{data_dir} belongs to user {status.st_uid}, but this process runs as {os.geteuid()}",
            "run as its owner, so that all files of the store have the same owner",
        )
    return ok("data directory", f"{data_dir}, for its owner only")


def _file_system(mount: MountPoint | None) -> Diagnosis:
    about = "file system"
    if mount is None:
        return warning(
            about, "unknown: this system has no mount table", "make sure that it is a local one that obeys fsync"
        )
    kind = mount.kind
    if kind in NETWORK_FILE_SYSTEMS or kind.startswith("fuse"):
        found = f"{kind} on {mount.path}: often does not keep flushes and locks"
        return warning(about, found, "put the store on a local disk, and run `cryo serve` there")
    if kind in TEMPORARY_FILE_SYSTEMS:
        return warning(about, f"{kind} on {mount.path}: may be lost with the machine", "put the store on a disk")
    if kind in FOREIGN_FILE_SYSTEMS:
        return warning(about, f"{kind} on {mount.path}: made for other systems", "use ext4, XFS, btrfs or ZFS")
    if unsafe := UNSAFE_MOUNT_OPTIONS & mount.options:
        return warning(
            about, f"mounted with {', '.join(unsafe)}", "a power failure would lose data: remove these options"
        )
    return ok(about, f"{kind} on {mount.path}")


def _free_space(data_dir: Path) -> Diagnosis:
    status = os.statvfs(data_dir)
    free, whole = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    found = f"{size_text(free)} of {size_text(whole)} free"
    advice = "delete recovery points and run `cryo gc`, or enlarge the disk"
    if not (data_dir / RESERVE_FILE).exists() and free < 2 * RESERVE_BYTES:
        return error("room", f"{found}, and the reserve is used up: new data is refused", advice)
    if free < whole * FREE_SHARE_MIN:
        return warning("room", found, advice)
    return ok("room", found)


def _keyring(data_dir: Path, keyring: str | None, copy: Path | None) -> Diagnoses:
    try:
        source = existing_keyring(data_dir, keyring)
        yield check_keyring(source)
    except CryostoreError as problem:
        yield failed("keyring", problem, "put it back from your copy")
        return
    if copy is None:
        advice = "`cryo key export --to FILE` makes one; --keyring-copy FILE checks it"
        yield ok("copy of the keyring", "not checked: no copy is named", advice)
    else:
        yield check_keyring_copy(source, copy, data_dir)


def _commits(data_dir: Path, keyring: str | None) -> Diagnoses:
    with ExitStack() as opened:
        try:
            source = existing_keyring(data_dir, keyring)
            database = open_catalog(data_dir / CATALOG, create=False, migrate=False)
            opened.callback(database.close)
            store = open_blobs(data_dir)
            opened.callback(store.close)
        except CryostoreError:
            return  # the check of that part reports it
        yield check_commits(database, store, source)


class MountPoint(NamedTuple):
    """One line of the table."""

    path: str
    kind: str
    options: frozenset[str]


def mount_of(path: Path, table: Path = MOUNT_TABLE) -> MountPoint | None:
    """Return the file system that holds `path`; None if this system has no mount table."""
    real = os.path.realpath(path)
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    found = None
    for line in lines:
        _, place, kind, options, *_ = line.split(" ")
        place = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), place)
        inside = real == place or real.startswith(place.rstrip("/") + "/")
        if inside and (found is None or len(place) >= len(found.path)):  # a later line lies above an earlier one
            found = MountPoint(place, kind, frozenset(options.split(",")))
    return found
