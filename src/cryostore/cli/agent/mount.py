"""`cryo mount`: mount recovery points as read-only folders."""

from __future__ import annotations

import os
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
def command(
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
