"""FUSE session: mounts a file system, and answers the kernel's requests about it from several threads.

`FuseSession` knows nodes by number only and asks a `FileSystem` about them. `mount` and `unmount` use the system call
as root, and `fusermount3` as any other user.
"""

from __future__ import annotations

import array
import ctypes
import errno
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from cryostore.agent.mount import fuse_messages as messages
from cryostore.agent.mount.fuse_messages import NodeAttributes, Opcode
from cryostore.core.errors import ConfigurationError, CryostoreError

THREADS = 4
REQUEST_BYTES_MAX = messages.WRITE_BYTES_MAX + 64 * 1024
READAHEAD_BYTES = 1024 * 1024
WRITING_OPCODES = frozenset((4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45))
"""Requests that would change something. The kernel refuses them first, since the mount is read-only."""
ROOT = 1
"""The number of the root node."""
DEVICE = "/dev/fuse"
NAME = "cryostore"
_READ_ONLY, _NO_SUID, _NO_DEVICES = 1, 2, 4
_DETACH = 2
_MOUNT_PROGRAMS = ("fusermount3", "fusermount")


class FoundNode(NamedTuple):
    """The node of a name, its attributes, and for how many seconds the kernel may cache both."""

    node: int
    attributes: NodeAttributes
    valid_seconds: int


class DirectoryItem(NamedTuple):
    """An item of a directory. `found` counts it as looked up, for a request that asks for attributes as well."""

    name: bytes
    inode: int
    mode: int
    found: Callable[[], FoundNode] | None


class FileSystem(Protocol):
    """The mounted file system. Several threads may call its methods at the same time.

    Methods raise OSError with the number for the caller, or CryostoreError, which the caller sees as EIO.
    """

    def look_up(self, node: int, name: bytes) -> FoundNode | None:
        """Return the node of a name in a directory and count one more look-up; None if there is none."""

    def forget(self, node: int, count: int) -> None:
        """Take back `count` look-ups of a node."""

    def attributes(self, node: int) -> tuple[NodeAttributes, int]:
        """Return the attributes of a node, and for how many seconds they are valid."""

    def link_target(self, node: int) -> bytes:
        """Return the target of a symlink."""

    def xattrs(self, node: int) -> dict[bytes, bytes]:
        """Return the extended attributes."""

    def open(self, node: int) -> int:
        """Open a file; return a handle."""

    def read(self, handle: int, offset: int, length: int) -> bytes:
        """Return bytes of an open file, fewer only at its end."""

    def seek(self, handle: int, offset: int, whence: int) -> int:
        """Return where the next data (SEEK_DATA) or hole (SEEK_HOLE) begins, from an offset on."""

    def open_directory(self, node: int) -> int:
        """Open a directory; return a handle."""

    def entries(self, handle: int, position: int) -> Iterator[DirectoryItem]:
        """Return the items of an open directory from a position on; positions count items."""

    def release(self, handle: int) -> None:
        """Close a handle."""


class FuseSession:
    """Answers the kernel's requests on a descriptor of /dev/fuse until the file system is unmounted."""

    def __init__(self, fd: int, file_system: FileSystem, on_failure: Callable[[str], None]) -> None:
        """`on_failure` receives the message of each failure that the caller only sees as EIO."""
        self._fd = fd
        self._files = file_system
        self._on_failure = on_failure
        self._handlers: dict[int, Callable[[int, bytes], bytes]] = {
            Opcode.LOOKUP: self._look_up,
            Opcode.GETATTR: self._attributes,
            Opcode.READLINK: lambda node, _: self._files.link_target(node),
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.STATFS: lambda _, __: messages.STATFS_OUT.pack(
                0, 0, 0, 0, 0, 4096, messages.NAMES_BYTES_MAX, 4096, 0
            ),
            Opcode.RELEASE: self._release,
            Opcode.GETXATTR: self._xattr,
            Opcode.LISTXATTR: self._xattr_names,
            Opcode.FLUSH: lambda _, __: b"",
            Opcode.INIT: self._init,
            Opcode.OPENDIR: self._open_directory,
            Opcode.READDIR: lambda _, data: self._list(data, plus=False),
            Opcode.READDIRPLUS: lambda _, data: self._list(data, plus=True),
            Opcode.RELEASEDIR: self._release,
            Opcode.LSEEK: self._seek,
            Opcode.DESTROY: lambda _, __: b"",
        }

    def start(self, on_end: Callable[[], None]) -> list[threading.Thread]:
        """Start the threads that answer requests. Each calls `on_end` when it ends, after the unmount."""

        def run() -> None:
            try:
                self._serve()
            finally:
                on_end()

        threads = [threading.Thread(target=run, name=f"fuse-{number}", daemon=True) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        return threads

    def _serve(self) -> None:
        buffer = memoryview(bytearray(REQUEST_BYTES_MAX))
        while True:
            try:
                length = os.readv(self._fd, [buffer])
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):  # the last: the request was aborted
                    continue
                return  # ENODEV: unmounted
            if length < messages.IN.size:
                return
            self._answer(bytes(buffer[:length]))

    def _answer(self, request: bytes) -> None:
        _, opcode, unique, node, *_ = messages.IN.unpack_from(request)
        data = request[messages.IN.size :]
        if opcode in (Opcode.FORGET, Opcode.BATCH_FORGET):
            self._forget(opcode, node, data)
            return
        number, body = 0, b""
        try:
            handler = self._handlers.get(opcode)
            if handler is None:
                number = errno.EROFS if opcode in WRITING_OPCODES else errno.ENOSYS
            else:
                body = handler(node, data)
        except OSError as error:
            number = error.errno or errno.EIO
        except CryostoreError as error:
            self._on_failure(error.message)
            number = errno.EIO
        except Exception as error:  # noqa: BLE001 - an unanswered request would block its caller forever
            self._on_failure(f"{type(error).__name__}: {error}")
            number = errno.EIO
        header = messages.OUT.pack(messages.OUT.size + len(body), -number, unique)
        try:
            os.writev(
                self._fd, [header, body] if not number else [messages.OUT.pack(messages.OUT.size, -number, unique)]
            )
        except OSError:
            return  # the caller has ended, or the file system is unmounted

    def _init(self, _: int, data: bytes) -> bytes:
        major, minor, readahead, offered = messages.INIT_IN.unpack_from(data)
        if major != messages.MAJOR or minor < messages.MINOR_MIN:
            self._on_failure(f"the kernel's FUSE version {major}.{minor} is too old")
            raise OSError(errno.EPROTO, "unsupported version")
        return messages.init_out(min(readahead, READAHEAD_BYTES), offered)

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _look_up(self, node: int, data: bytes) -> bytes:
        found = self._files.look_up(node, data.rstrip(b"\0"))
        if found is None:
            raise OSError(errno.ENOENT, "no such entry")
        return messages.entry_out(*found)

    def _forget(self, opcode: int, node: int, data: bytes) -> None:
        if opcode == Opcode.FORGET:
            self._files.forget(node, messages.FORGET_IN.unpack_from(data)[0])
            return
        count, _ = messages.BATCH_FORGET_IN.unpack_from(data)
        for number in range(count):
            at = messages.BATCH_FORGET_IN.size + number * messages.FORGET_ONE.size
            self._files.forget(*messages.FORGET_ONE.unpack_from(data, at))

    def _attributes(self, node: int, _: bytes) -> bytes:
        attributes, valid_seconds = self._files.attributes(node)
        return messages.ATTRIBUTES_OUT.pack(valid_seconds, 0, 0) + attributes.pack()

    def _xattr(self, node: int, data: bytes) -> bytes:
        name = data[messages.GETXATTR_IN.size :].rstrip(b"\0")
        value = self._files.xattrs(node).get(name)
        if value is None:
            raise OSError(errno.ENODATA, "no such attribute")
        return _sized(value, data)

    def _xattr_names(self, node: int, data: bytes) -> bytes:
        return _sized(b"".join(name + b"\0" for name in self._files.xattrs(node)), data)

    # --- open files and directories -----------------------------------------------------------------------------------

    def _open(self, node: int, data: bytes) -> bytes:
        if int.from_bytes(data[:4], "little") & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EROFS, "read-only")
        return messages.OPEN_OUT.pack(self._files.open(node), messages.KEEP_CACHE, 0)

    def _read(self, _: int, data: bytes) -> bytes:
        return self._files.read(*messages.READ_IN.unpack_from(data))

    def _seek(self, _: int, data: bytes) -> bytes:
        return messages.LSEEK_OUT.pack(self._files.seek(*messages.LSEEK_IN.unpack_from(data)))

    def _open_directory(self, node: int, _: bytes) -> bytes:
        return messages.OPEN_OUT.pack(self._files.open_directory(node), 0, 0)

    def _list(self, data: bytes, *, plus: bool) -> bytes:
        handle, position, size = messages.READ_IN.unpack_from(data)
        answer = bytearray()
        for entry in self._files.entries(handle, position):
            position += 1
            packed = messages.dirent(entry.inode, position, entry.mode, entry.name)
            room = len(packed) + (messages.ENTRY.size + messages.ATTRIBUTES.size if plus else 0)
            if len(answer) + room > size:
                break
            if plus:
                answer += messages.entry_out(*entry.found()) if entry.found else messages.entry_out(0, None, 0)
            answer += packed
        return bytes(answer)

    def _release(self, _: int, data: bytes) -> bytes:
        self._files.release(*messages.RELEASE_IN.unpack_from(data))
        return b""


def _sized(value: bytes, request: bytes) -> bytes:
    """Return the answer to a request that asks for the length first and then for the value."""
    room, _ = messages.GETXATTR_IN.unpack_from(request)
    if not room:
        return messages.GETXATTR_IN.pack(len(value), 0)
    if len(value) > room:
        raise OSError(errno.ERANGE, "value too long")
    return value


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
