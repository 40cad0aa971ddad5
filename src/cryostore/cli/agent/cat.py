"""`cryo cat`: write the content of one file to stdout."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from cryostore.cli import output
from cryostore.cli.agent_store import AgentStore, agent_store_options, open_agent_store
from cryostore.cli.exit_codes import EPILOGUE, OK, WITH_ISSUES
from cryostore.core.errors import CryostoreError

if TYPE_CHECKING:
    from cryostore.agent.archive.files import ArchiveFiles
    from cryostore.agent.archive.listing import ArchiveEntry


@click.command("cat", epilog=EPILOGUE)
@click.argument("point", metavar="POINT[:PATH]")
@click.option("--vault", default=None, help="Look for POINT only in this vault.")
@click.option("--resource", default=None, metavar="NAME", help="Look for POINT only among those of this resource.")
@click.option("--json", is_flag=True, expose_value=False, help="Print errors as JSON.")
@agent_store_options
def command(point: str, vault: str | None, resource: str | None, **place: Any) -> int:
    """Write the file at PATH in a recovery point to stdout. A stream or a disk needs no PATH.

    Holes of a file are written as zeros.
    """
    from cryostore.agent.archive.chunks import ChunkCache
    from cryostore.agent.archive.files import ArchiveFiles
    from cryostore.agent.archive.open_archive import open_archive
    from cryostore.agent.archive.recovery_points import find_point, split_point

    name, path = split_point(point)
    with (
        open_agent_store(AgentStore(**place)) as call,
        open_archive(call, find_point(call, name, vault, resource), "cat") as archive,
        closing(ChunkCache()) as cache,
    ):
        files = ArchiveFiles(archive, cache)
        return write_file(files, path, sys.stdout.fileno())


def write_file(files: ArchiveFiles, path: str, fd: int) -> int:
    """Write a file to a descriptor. Return the exit code: 1 if the file is damaged or the reader closed the pipe early.

    Raises CryostoreError if the descriptor accepts no more data, as on a full disk.
    """
    from cryostore.agent.errors import DAMAGE, shown

    name = os.fsencode(path)
    try:
        entry = files.file(path)
        name = entry.path
        _write_entry(files, entry, fd)
    except BrokenPipeError:  # the reader has stopped on purpose: no message
        return WITH_ISSUES
    except DAMAGE as error:
        output.tell(f"{shown(name)}: {error.message}")
        return WITH_ISSUES
    return OK


def _write_entry(files: ArchiveFiles, entry: ArchiveEntry, fd: int) -> None:
    """Write a file to a descriptor. Raises BrokenPipeError, and CryostoreError for any other failed write."""
    from cryostore.agent.archive.files import file_parts
    from cryostore.agent.restore.single_file_restore import write_out

    for part in file_parts(files.open(entry)):
        try:
            write_out(fd, part)
        except BrokenPipeError:
            raise
        except OSError as error:
            hint = "check that there is enough space at the destination"
            raise CryostoreError(f"cannot write to stdout: {error.strerror}", hint=hint) from error
