"""Mount and unmount calls of FUSE: the system call for root, `fusermount3` for other users."""

from __future__ import annotations

import array
import ctypes
import errno
import os
import shutil
import socket
import subprocess

from cryostore.core.errors import ConfigurationError

DEVICE = "/dev/fuse"
NAME = "cryostore"
_READ_ONLY, _NO_SUID, _NO_DEVICES = 1, 2, 4
_DETACH = 2
_MOUNT_PROGRAMS = ("fusermount3", "fusermount")


def mount(folder: str, *, allow_other: bool) -> int:
    """Mount on an empty folder; return the descriptor that requests arrive on. Raises ConfigurationError.

    With `allow_other`, other users have access too, and the modes of the files decide what they may read.
    """
    try:
        names = os.listdir(folder)
    except OSError as error:
        hint = "an earlier mount was killed: `umount` it first" if error.errno == errno.ENOTCONN else ""
        raise ConfigurationError(f"cannot mount on {folder!a}: {error.strerror}", hint=hint) from error
    if names:
        raise ConfigurationError(
            f"{folder!a} is not empty", hint="the mount would hide its content: choose an empty folder"
        )
    if not os.path.exists(DEVICE):
        raise ConfigurationError(f"there is no {DEVICE}", hint="`modprobe fuse` as root; a container needs the device")
    options = ["allow_other", "default_permissions"] if allow_other else []
    if os.geteuid() == 0:
        return _mount_as_root(folder, options)
    return _mount_by_program(folder, options)


def _mount_as_root(folder: str, options: list[str]) -> int:
    fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    data = ",".join([f"fd={fd}", "rootmode=40000", f"user_id={os.geteuid()}", f"group_id={os.getegid()}", *options])
    flags = _READ_ONLY | _NO_SUID | _NO_DEVICES
    path = os.fsencode(folder)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(NAME.encode(), path, f"fuse.{NAME}".encode(), ctypes.c_ulong(flags), data.encode()):
        number = ctypes.get_errno()
        os.close(fd)
        hint = "a container needs CAP_SYS_ADMIN to mount" if number == errno.EPERM else ""
        raise ConfigurationError(f"cannot mount {folder!a}: {os.strerror(number)}", hint=hint)
    return fd


def _mount_by_program(folder: str, options: list[str]) -> int:
    program = _mount_program()
    words = ",".join([f"fsname={NAME}", f"subtype={NAME}", "ro", "nosuid", "nodev", *options])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(  # noqa: S603 - a program of the system, with our own arguments
            [program, "-o", words, "--", folder],
            env=os.environ | {"_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            hint = "`user_allow_other` in /etc/fuse.conf permits --allow-other" if options else ""
            raise ConfigurationError(f"cannot mount {folder!a}: {done.stderr.strip()}", hint=hint)
        size = array.array("i").itemsize
        _, messages, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(size))
    for level, kind, data in messages:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fd = array.array("i", data[:size])[0]
            os.set_inheritable(fd, False)  # noqa: FBT003 - the system's own signature
            return fd
    raise ConfigurationError(f"cannot mount {folder!a}: {program} returned no descriptor")


def _mount_program() -> str:
    found = next((path for name in _MOUNT_PROGRAMS if (path := shutil.which(name))), None)
    if found is None:
        raise ConfigurationError(
            "there is no fusermount3, which mounts for users other than root", hint="install the package fuse3"
        )
    return found


def unmount(folder: str) -> None:
    """Unmount, if still mounted, even while files are open: reading them fails from then on."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).umount2(os.fsencode(folder), _DETACH)
        return
    subprocess.run([_mount_program(), "-u", "-z", "--", folder], stderr=subprocess.DEVNULL, check=False)  # noqa: S603 - as above
