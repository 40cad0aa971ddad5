"""Backup run over a stream: content-defined chunking of the stream, which becomes the content of one file.

The size of a stream is unknown before its end, and a stream cannot be read twice: if the source fails, no recovery
point is made.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from cryostore.agent.backup.resume_note import ResumeNote
from cryostore.agent.backup.run import BackupResult
from cryostore.agent.errors import SourceError, shown
from cryostore.agent.header import ContentObject, content_name
from cryostore.agent.report import Report
from cryostore.agent.streams.command import running
from cryostore.agent.streams.single_file import SingleFileOptions, SingleFileWriter, opened_writer
from cryostore.agent.upload.content import ContentWriter
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.agent.upload.object_upload import ObjectUpload
from cryostore.core.interrupts import interruptible
from cryostore.core.time import Clock, wall_clock
from cryostore.model.operation import Call

BYTES_MAX = 1 << 62
"""Limit that no stream reaches: the length of a stream is unknown before its end."""


class _CountingReader:
    """Reads a descriptor and counts the bytes in the report."""

    def __init__(self, fd: int, name: bytes, report: Report) -> None:
        self._fd = fd
        self._name = name
        self._report = report

    def read(self, view: memoryview) -> int:
        """Fill a buffer, or less of it at the end of the stream. Return the bytes read. Raises SourceError."""
        filled = 0
        while filled < len(view):
            try:
                with interruptible:
                    got = os.readv(self._fd, [view[filled:]])
            except OSError as error:
                raise SourceError.of(self._name, error) from error
            if not got:
                break
            filled += got
            self._report.file_bytes += got
            self._report.read_bytes += got
        return filled


def backup_stream(
    call: Call,
    options: SingleFileOptions,
    source: int | Sequence[str],
    report: Report,
    *,
    note: ResumeNote | None = None,
    now: Clock = wall_clock,
) -> BackupResult:
    """Back up the bytes of a descriptor or the standard output of a command, and count in `report`.

    Raises SourceError if the descriptor cannot be read, or if the command cannot be run or fails, and the errors of the
    store. In each case, and after an interrupt, no recovery point is made. The next run with the same `note` resumes a
    run that was killed: data that was sent is not sent again.
    """
    report.current = options.name
    producer: AbstractContextManager[int] = nullcontext(source) if isinstance(source, int) else running(source)
    with opened_writer(call, options, note) as writer:
        number = max((each.number for each in writer.base.header.objects), default=0) + 1 if writer.base else 1
        upload = writer.upload(content_name(number))
        into = ContentWriter(writer.uploader, upload, number, writer.policy.chunker(), DigestTable())
        with producer as fd:
            content, size = into.large(_CountingReader(fd, options.name, report).read, BYTES_MAX)
        writer.uploader.flush()
        report.entries = report.files = 1
        report.damaged_objects = writer.damaged_count
        report.sent_bytes = writer.uploader.bytes_sent
        found: dict[str, bytes] = {}
        if size and (kept := _same_as_base(writer, upload)) is not None:
            content = content._replace(object_number=kept)
            found[content_name(kept)] = writer.base.object_checksums()[content_name(kept)] if writer.base else b""
            report.unchanged = 1
        elif size:
            upload.complete()
            found[upload.name] = upload.summary()
            report.new = 1
        objects = [ContentObject(content.object_number, size, size, upload.mark())] if size else []
        metadata = {"objectName": shown(options.name), "contentLength": str(size)}
        return writer.commit(found, size, now(), metadata, content=content, objects=objects)


def _same_as_base(writer: SingleFileWriter, upload: ObjectUpload) -> int | None:
    """Return the number of the content object of the base that has the same chunks; None if there is none.

    Sealed objects are compared by their marks, because equal content is sealed to different bytes.
    """
    if writer.base is None:
        return None
    held = writer.base.object_checksums()
    for each in writer.base.header.objects:
        mark = upload.mark()
        if content_name(each.number) in writer.damaged:
            continue
        if mark == each.mark if mark else held.get(content_name(each.number)) == upload.summary():
            return each.number
    return None
