"""`cryo mount`: look into recovery points as if they were folders."""

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
"""How long what is being read may take at the end. Who has a file open keeps the rest, until this process is gone."""


@click.command("mount", epilog=EPILOGUE)
@click.argument("folder", metavar="DIR", type=click.Path())
@click.argument("point", metavar="[POINT]", required=False, default=None)
@click.option("--vault", default=None, help="Only the recovery points of this vault.")
@click.option("--resource", default=None, metavar="NAME", help="Only those of this resource.")
@click.option("--allow-other", is_flag=True, help="Let other users in, as far as the files' modes let them.")
@click.option("--json", is_flag=True, expose_value=False, help="Say errors as JSON.")
@agent_store_options
def command(
    folder: str, point: str | None, vault: str | None, resource: str | None, allow_other: bool, **place: Any
) -> None:
    """Show POINT in the empty folder DIR, or all recovery points: by resource and time, `latest` among them.

    Nothing can be changed there. Goes on until Ctrl-C, SIGTERM, or `umount DIR`. Works on Linux, as root or with the
    package fuse3 installed.
    """
    from cryostore.agent.archive.recovery_points import find_point
    from cryostore.agent.mount.file_system import RecoveryPointFileSystem
    from cryostore.agent.mount.fuse_mount import mount, unmount
    from cryostore.agent.mount.fuse_session import FuseSession
    from cryostore.core.threads import wait

    ended = threading.Event()
    folder = os.path.abspath(folder)  # noqa: PTH100 - symlinks stay as they are named
    with open_agent_store(AgentStore(**place)) as call:
        found = find_point(call, point, vault, resource) if point else None
        with closing(RecoveryPointFileSystem(call, found, vault, resource)) as mounted:
            fd = mount(folder, allow_other=allow_other)
            try:
                threads = FuseSession(fd, mounted, _say_once()).start(ended.set)
                interrupts.check()
                how = "umount" if os.geteuid() == 0 else "fusermount3 -u"
                with suppress(KeyboardInterrupt):  # it is how a mount ends, from the moment that this line says so
                    output.tell(f"mounted on {folder}: Ctrl-C or `{how} {folder}` ends it")
                    wait(ended)
                unmount(folder)
                deadline = time.monotonic() + END_SECONDS
                for thread in threads:
                    thread.join(max(deadline - time.monotonic(), 0))
            finally:
                unmount(folder)
                os.close(fd)


def _say_once() -> Any:
    said: set[str] = set()

    def say(message: str) -> None:
        if message not in said:
            said.add(message)
            output.tell(f"cannot be read: {message}")

    return say
