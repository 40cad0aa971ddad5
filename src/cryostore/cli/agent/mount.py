"""Commands that show recovery points without a restore: `cryo mount` (folders) and `cryo serve-nbd` (block devices)."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import closing, suppress
from typing import Any

import click

from cryostore.cli import output
from cryostore.cli.agent_store import AgentStore, agent_store_options, open_agent_store
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.core import interrupts

END_SECONDS = 1.0
"""How long reads in progress may take at the end. Files that are still open stay mounted until this process exits."""


@click.command("mount", epilog=EPILOGUE)
@click.argument("folder", metavar="DIR", type=click.Path())
@click.argument("point", metavar="[POINT]", required=False, default=None)
@click.option("--vault", default=None, help="Show only the recovery points of this vault.")
@click.option("--resource", default=None, metavar="NAME", help="Show only those of this resource.")
@click.option("--allow-other", is_flag=True, help="Give other users access, as the modes of the files allow.")
@click.option("--json", is_flag=True, expose_value=False, help="Print errors as JSON.")
@agent_store_options
def mount(
    folder: str, point: str | None, vault: str | None, resource: str | None, allow_other: bool, **place: Any
) -> None:
    """Mount POINT on the empty folder DIR, or all recovery points by resource and time, with `latest`.

    The mount is read-only, and lasts until Ctrl-C, SIGTERM or `umount DIR`. Works on Linux, as root or with the package
    fuse3 installed.
    """
    from cryostore.agent.archive.recovery_points import find_point
    from cryostore.agent.mount.file_system import RecoveryPointFileSystem
    from cryostore.agent.mount.fuse_session import FuseSession, mount, unmount
    from cryostore.core.threads import wait_until_set

    ended = threading.Event()
    folder = os.path.abspath(folder)  # noqa: PTH100 - keeps symlinks in the path
    with open_agent_store(AgentStore(**place)) as call:
        found = find_point(call, point, vault, resource) if point else None
        with closing(RecoveryPointFileSystem(call, found, vault, resource)) as mounted:
            fd = mount(folder, allow_other=allow_other)
            try:
                threads = FuseSession(fd, mounted, _tell_once()).start(ended.set)
                interrupts.check()
                how = "umount" if os.geteuid() == 0 else "fusermount3 -u"
                with suppress(KeyboardInterrupt):  # from this line on, Ctrl-C is the normal end
                    output.tell(f"mounted on {folder}: Ctrl-C or `{how} {folder}` ends it")
                    wait_until_set(ended)
                unmount(folder)
                deadline = time.monotonic() + END_SECONDS
                for thread in threads:
                    thread.join(max(deadline - time.monotonic(), 0))
            finally:
                unmount(folder)
                os.close(fd)


def _tell_once() -> Any:
    said: set[str] = set()

    def say(message: str) -> None:
        if message not in said:
            said.add(message)
            output.tell(f"cannot be read: {message}")

    return say


@click.command("serve-nbd", epilog=EPILOGUE)
@click.argument("point", metavar="POINT[:PATH]")
@click.option("--socket", "path", required=True, type=click.Path(), metavar="PATH", help="The Unix socket to create.")
@click.option("--vault", default=None, help="Look for POINT only in this vault.")
@click.option("--resource", default=None, metavar="NAME", help="Look for POINT only among those of this resource.")
@click.option("--json", is_flag=True, expose_value=False, help="Print errors as JSON.")
@agent_store_options
def serve_nbd(point: str, path: str, vault: str | None, resource: str | None, **place: Any) -> None:
    """Serve a disk, or another file of a recovery point, to NBD clients on this machine, without a restore.

    Clients are, for example, `nbd-client -unix PATH /dev/nbd0`, `qemu-img convert nbd+unix:///?socket=PATH disk.qcow2`
    and `nbdcopy`. Runs until Ctrl-C or SIGTERM.
    """
    from cryostore.agent.archive.recovery_points import find_point, split_point
    from cryostore.agent.mount.archive_pool import ArchivePool, PooledFile
    from cryostore.agent.mount.nbd_server import Export, listening_socket, serve_clients
    from cryostore.core.threads import wait_until_set

    name, wanted = split_point(point)
    with open_agent_store(AgentStore(**place)) as call, closing(ArchivePool(call)) as points:
        found = find_point(call, name, vault, resource)
        entry = points.run(found, lambda files: files.file(wanted))
        with listening_socket(path) as server:
            interrupts.check()
            export = Export(entry.path, PooledFile(points, found, entry))
            threading.Thread(target=serve_clients, args=(server, export), name="nbd", daemon=True).start()
            with suppress(KeyboardInterrupt):  # from this line on, Ctrl-C is the normal end
                output.tell(f"serving {entry.row.size} bytes on {path}: Ctrl-C ends it")
                wait_until_set(threading.Event())
            server.shutdown(socket.SHUT_RDWR)
