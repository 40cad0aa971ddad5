"""Backups and restores by the agent over any `Call`, and pictures of trees on disk with all their metadata."""

from __future__ import annotations

import os
import stat
from hashlib import sha256

from cryostore.agent.archive.open_archive import open_archive
from cryostore.agent.archive.recovery_points import find_point
from cryostore.agent.backup.run import BackupOptions, backup_tree
from cryostore.agent.encryption.keyed_call import KeyedCall
from cryostore.agent.report import Report
from cryostore.agent.restore.tree_restore import TreeRestoreOptions as RestoreOptions
from cryostore.agent.restore.tree_restore import restore_tree
from cryostore.core.time import wall_clock

LATER_MS = 3_600_000


def in_an_hour():
    """A clock ahead of the files' times: a file that was just written counts as old, and so as unlikely to change."""
    return wall_clock() + LATER_MS


class Runs:
    """Backs up and restores through a `Call`, each resource by its own name, encrypted if there is a key."""

    def __init__(self, call, resource="tree", key=None, memory_folder=""):
        self.call = call
        self.resource = resource
        self.key = key
        self.memory_folder = str(memory_folder)

    @property
    def keyed_call(self):
        """Return the call, with the key if there is one."""
        return KeyedCall(self.call, self.key, self.memory_folder) if self.key else self.call

    def backup(self, root, *, now=in_an_hour, before_read=None, note=None, **options):
        """Run a backup; return its report and its outcome."""
        report = Report()
        arguments = {"vault": "Default", "resource": self.resource} | options
        wanted = BackupOptions(root=os.fsencode(root), **arguments)
        outcome = backup_tree(self.keyed_call, wanted, report, note=note, now=now, before_read=before_read)
        return report, outcome

    def restore(self, target, point="latest", **options):
        """Restore the newest recovery point, or another."""
        report = Report()
        with self.opened(point) as archive:
            restore_tree(archive, RestoreOptions(target=os.fsencode(target), **options), report)
        return report

    def opened(self, point="latest"):
        """Open the archive of a recovery point."""
        return open_archive(self.keyed_call, find_point(self.call, point, resource=self.resource), "test")

    def latest(self):
        """The ARN of the newest recovery point."""
        return find_point(self.call, "latest", resource=self.resource).recovery_point_arn


def seen(root):
    """Return the entries of a tree by path: kind, mode, owner, time, attributes, content, and hard links."""
    root = os.fsencode(root)
    found = {b"": _facts(root)}
    inodes = {}
    for place, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(place, name)
            facts = found[os.path.relpath(path, root)] = _facts(path)
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode):
                inodes.setdefault((status.st_dev, status.st_ino), []).append(facts)
    for names in inodes.values():
        for facts in names:
            facts["names"] = len(names)
    return found


def _facts(path):
    status = os.lstat(path)
    facts = {
        "mode": status.st_mode,
        "owner": (status.st_uid, status.st_gid),
        "mtime_ns": status.st_mtime_ns,
        "xattrs": {name: os.getxattr(path, name, follow_symlinks=False) for name in _xattr_names(path)},
    }
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            facts["content"] = sha256(file.read()).hexdigest()
        facts["size"] = status.st_size
    elif stat.S_ISLNK(status.st_mode):
        facts["target"] = os.readlink(path)
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        facts["device"] = status.st_rdev
    return facts


def _xattr_names(path):
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []


def write(root, tree):
    """Make files and folders: a mapping of names to bytes, mappings, or functions that make an entry at a path."""
    os.makedirs(root, exist_ok=True)
    for name, what in tree.items():
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        if isinstance(what, bytes):
            with open(path, "wb") as file:
                file.write(what)
        elif isinstance(what, dict):
            write(path, what)
        else:
            what(path)


def contents(root):
    """Return the bytes of the files of a tree by their paths."""
    root = os.fsencode(root)
    found = {}
    for folder, _, files in os.walk(root):
        for path in (os.path.join(folder, name) for name in files):
            if stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, "rb") as file:
                    found[os.path.relpath(path, root)] = file.read()
    return found
