"""`cryo serve-nbd`: serve a disk of a recovery point as a block device."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, suppress
from typing import Any

import click

from cryostore.cli import output
from cryostore.cli.agent_store import AgentStore, agent_store_options, open_agent_store
from cryostore.cli.exit_codes import EPILOGUE
from cryostore.core import interrupts


@click.command("serve-nbd", epilog=EPILOGUE)
@click.argument("point", metavar="POINT[:PATH]")
@click.option("--socket", "path", required=True, type=click.Path(), metavar="PATH", help="The Unix socket to create.")
@click.option("--vault", default=None, help="Look for POINT only in this vault.")
@click.option("--resource", default=None, metavar="NAME", help="Look for POINT only among those of this resource.")
@click.option("--json", is_flag=True, expose_value=False, help="Print errors as JSON.")
@agent_store_options
def command(point: str, path: str, vault: str | None, resource: str | None, **place: Any) -> None:
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
