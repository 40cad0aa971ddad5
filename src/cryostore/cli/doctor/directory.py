"""What `cryo doctor` looks at in a data directory: who may read it, what it lies on, room, and the keyring."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from cryostore.cli.doctor.diagnosis import Diagnoses, Diagnosis, error, failed, known_commits, ok, warning
from cryostore.cli.doctor.mount_table import MountPoint, mount_of
from cryostore.core.errors import CryostoreError
from cryostore.core.limits import MIB

NETWORK = {"9p", "afs", "ceph", "cifs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs", "virtiofs"}
PASSING = {"overlay", "ramfs", "rootfs", "squashfs", "tmpfs"}
FOREIGN = {"exfat", "fat", "hfs", "hfsplus", "msdos", "ntfs", "ntfs3", "vfat"}
CARELESS = {"nobarrier", "barrier=0"}
FREE_SHARE_MIN = 0.1
RESERVE_BYTES = 64 * MIB


def directory(data_dir: Path, keyring: str | None, copy: Path | None) -> Diagnoses:
    """Everything about a data directory that is seen without opening the store."""
    from cryostore.service.opening.open import CATALOG

    if not (data_dir / CATALOG).exists():
        yield error("data directory", f"{data_dir} holds no store", "`cryo backup --data-dir` makes one")
        return
    yield _rights(data_dir)
    yield _file_system(mount_of(data_dir))
    yield _room(data_dir)
    yield from _keyring(data_dir, keyring, copy)
    yield from _commits(data_dir, keyring)


def _rights(data_dir: Path) -> Diagnosis:
    status = data_dir.stat()
    mode = status.st_mode & 0o777
    if mode & 0o077:
        return warning("data directory", f"others may enter {data_dir} (mode {mode:04o})", f"chmod 700 {data_dir}")
    if status.st_uid != os.geteuid():
        return warning(
            "data directory",
            f"{data_dir} belongs to user {status.st_uid}, and this runs as {os.geteuid()}",
            "run as its owner, or the owner will meet files that are not theirs",
        )
    return ok("data directory", f"{data_dir}, for its owner only")


def _file_system(mount: MountPoint | None) -> Diagnosis:
    about = "file system"
    if mount is None:
        return warning(about, "what it is cannot be seen", "make sure that it is a local one that obeys fsync")
    kind = mount.kind
    if kind in NETWORK or kind.startswith("fuse"):
        found = f"{kind} on {mount.path}: usually keeps neither flushes nor locks"
        return warning(about, found, "put the store on a local disk, and run `cryo serve` there")
    if kind in PASSING:
        return warning(about, f"{kind} on {mount.path}: may be gone with the machine", "put the store on a disk")
    if kind in FOREIGN:
        return warning(about, f"{kind} on {mount.path}: made for other systems", "use ext4, XFS, btrfs or ZFS")
    if careless := CARELESS & mount.options:
        return warning(about, f"mounted with {', '.join(careless)}", "a power cut would lose data: leave that out")
    return ok(about, f"{kind} on {mount.path}")


def _room(data_dir: Path) -> Diagnosis:
    from cryostore.chunks.disk_reserve import FILE
    from cryostore.core.quantities import size_text

    status = os.statvfs(data_dir)
    free, whole = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    found = f"{size_text(free)} of {size_text(whole)} free"
    advice = "delete recovery points and run `cryo gc`, or enlarge the disk"
    if not (data_dir / FILE).exists() and free < 2 * RESERVE_BYTES:
        return error("room", f"{found}, and the reserve is used up: new data is refused", advice)
    if free < whole * FREE_SHARE_MIN:
        return warning("room", found, advice)
    return ok("room", found)


def _keyring(data_dir: Path, keyring: str | None, copy: Path | None) -> Diagnoses:
    from cryostore.service.opening.keyring import existing_keyring, place_of

    try:
        source = existing_keyring(data_dir, keyring)
        place = place_of(data_dir, keyring)
        number = len(source.document().keys)
    except CryostoreError as problem:
        yield failed("keyring", problem, "put it back from your copy")
        return
    if place.path is not None and (mode := place.path.stat().st_mode & 0o777) & 0o077:
        yield warning("keyring", f"{place.path} can be read by others (mode {mode:04o})", f"chmod 600 {place.path}")
    else:
        yield ok("keyring", f"{source.place}, {number} {'key' if number == 1 else 'keys'}")
    if copy is None:
        advice = "`cryo key export --to FILE` makes one, --keyring-copy FILE shows that it fits"
        yield ok("copy of the keyring", "whether there is one elsewhere cannot be seen from here", advice)
    else:
        yield _copy(data_dir, keyring, copy)


def _commits(data_dir: Path, keyring: str | None) -> Diagnoses:
    from cryostore.catalog import open_catalog
    from cryostore.chunks.blobs import open_blobs
    from cryostore.service.opening.keyring import existing_keyring
    from cryostore.service.opening.open import CATALOG

    with ExitStack() as opened:
        try:
            source = existing_keyring(data_dir, keyring)
            database = open_catalog(data_dir / CATALOG, create=False, migrate=False)
            opened.callback(database.close)
            store = open_blobs(data_dir)
            opened.callback(store.close)
        except CryostoreError:
            return  # what is wrong is said by what looks at that part
        yield known_commits(database, store, source)


def _copy(data_dir: Path, keyring: str | None, copy: Path) -> Diagnosis:
    """Whether the copy has every key that the keyring has, and does not lie with the data."""
    from cryostore.chunks.keyring.document import DOCUMENT_BYTES_MAX, NoDocumentError, decode_text
    from cryostore.chunks.keyring.paper import is_paper, read_paper
    from cryostore.service.opening.keyring import existing_keyring

    about, advice = "copy of the keyring", "make one anew: `cryo key export --to FILE`"
    try:
        with copy.open("rb") as file:
            data = file.read(DOCUMENT_BYTES_MAX + 1)
        theirs = read_paper(data) if is_paper(data) else decode_text(data)
    except OSError as problem:
        return error(about, f"{copy} cannot be read: {problem.strerror}", advice)
    except (NoDocumentError, CryostoreError):
        return error(about, f"{copy} holds no keyring", advice)
    ours = existing_keyring(data_dir, keyring).document()
    wrong = [name for name, key in ours.keys.items() if name not in theirs.keys or not key.is_same(theirs.keys[name])]
    if wrong:
        return error(about, f"{copy} lacks {len(wrong)} of {len(ours.keys)} keys", advice)
    if copy.stat().st_dev == data_dir.stat().st_dev:
        return warning(about, f"{copy} has all keys, but lies on the disk of the data", "keep it somewhere else")
    return ok(about, f"{copy} has all {len(ours.keys)} keys")
