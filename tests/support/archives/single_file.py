"""Backups and restores of streams and disks over any `Call`."""

from __future__ import annotations

import os
import threading
from contextlib import closing, contextmanager
from pathlib import Path

from cryostore.agent.archive.chunks import ChunkCache
from cryostore.agent.archive.files import ArchiveFiles, file_parts
from cryostore.agent.header import DISK, STREAM
from cryostore.agent.report import Report
from cryostore.agent.restore.single_file_restore import SingleFileRestoreOptions as TargetOptions
from cryostore.agent.restore.single_file_restore import restore_file
from cryostore.agent.streams.device import backup_device
from cryostore.agent.streams.single_file import SingleFileOptions
from cryostore.agent.streams.stream import backup_stream
from cryostore.core.limits import MIB

SEGMENT_BYTES = 4 * MIB


class SingleRuns:
    """Backs up and restores a stream or disk of one resource."""

    def __init__(self, runs, kind):
        self.runs = runs
        self.kind = kind

    def options(self, name=b"file"):
        return SingleFileOptions(kind=self.kind, name=name, vault="Default", resource=self.runs.resource)

    def stream(self, source, **more):
        """Back up bytes as from a pipe, or the output of a command; return report and outcome."""
        report = Report()
        if isinstance(source, list):
            return report, backup_stream(self.runs.keyed_call, self.options(), source, report, **more)
        with piped(source) as fd:
            return report, backup_stream(self.runs.keyed_call, self.options(), fd, report, **more)

    def disk(self, path, **more):
        """Back up a disk in small segments; return report and outcome."""
        report = Report()
        arguments = {"segment_bytes": SEGMENT_BYTES} | more
        return report, backup_device(self.runs.keyed_call, self.options(), os.fsencode(path), report, **arguments)

    @contextmanager
    def files(self, point="latest"):
        """Return the files of a recovery point."""
        with self.runs.opened(point) as archive, closing(ChunkCache()) as cache:
            yield ArchiveFiles(archive, cache)

    def content(self, point="latest"):
        """Return all bytes of the only file."""
        with self.files(point) as files:
            return b"".join(file_parts(files.open(files.only())))

    def restore(self, target, point="latest", **options):
        """Restore to a file or a device; return the report."""
        report = Report()
        with self.files(point) as files:
            restore_file(files, files.only(), TargetOptions(target=os.fsencode(target), **options), report)
        return report


@contextmanager
def piped(data):
    """Return a descriptor that delivers these bytes in pieces of uneven sizes, as a pipe does."""
    read_end, write_end = os.pipe()

    def write():
        with os.fdopen(write_end, "wb", buffering=0) as pipe:
            view = memoryview(data)
            step = 1
            while view:
                step = step * 3 % 100_003 + 1
                view = view[pipe.write(view[:step]) :]

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield read_end
    finally:
        os.close(read_end)
        thread.join()


def streams(runs):
    return SingleRuns(runs, STREAM)


def disks(runs):
    return SingleRuns(runs, DISK)


def write_at(path, offset, data):
    """Write into a file without changing the rest of it."""
    with Path(path).open("r+b") as file:
        file.seek(offset)
        file.write(data)
