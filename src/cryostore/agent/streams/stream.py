"""Backup run over a stream: content-defined chunking of the stream, which becomes the content of one file.

The stream is a descriptor or the standard output of a command, whose stderr is that of this process. The size of a
stream is unknown before its end, and a stream cannot be read twice: if the source fails, no recovery point is made.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from cryostore.agent.backup.job import ResumeNote
from cryostore.agent.backup.run import BackupResult
from cryostore.agent.errors import SourceError, shown
from cryostore.agent.header import ContentObject, content_name
from cryostore.agent.report import Report
from cryostore.agent.streams.single_file import SingleFileOptions, SingleFileWriter, opened_writer
from cryostore.agent.upload.content import ContentWriter
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.agent.upload.object_upload import ObjectUpload
from cryostore.core.interrupts import interruptible
from cryostore.core.time import Clock, wall_clock
from cryostore.model.operation import Call

BYTES_MAX = 1 << 62
"""Limit that no stream reaches: the length of a stream is unknown before its end."""
STOP_SECONDS = 5.0
SHELL = "/bin/sh"


def in_shell(text: str) -> list[str]:
    """Return the arguments that run a line of shell.

    Uses bash if it is installed, because its `pipefail` reports a failure in any part of a pipe, not only in the last.
    """
    bash = shutil.which("bash")
    return [bash, "-o", "pipefail", "-c", text] if bash else [SHELL, "-c", text]


@contextmanager
def running(arguments: Sequence[str]) -> Iterator[int]:
    """Run a command and yield the descriptor of its output, which must be read to its end.

    Raises SourceError if the command cannot be started and, at the end of the context, if it failed or was killed. If
    the context ends with an error, the command is stopped.
    """
    name = os.fsencode(shlex.join(arguments))
    try:
        process = subprocess.Popen(  # noqa: S603 - the command is what the user asked for
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
    except OSError as error:
        raise SourceError(name, f"cannot be run: {error.strerror}") from error
    assert process.stdout is not None
    try:
        with process.stdout:
            yield process.stdout.fileno()
        with interruptible:
            code = process.wait()
    except BaseException:
        _stop(process)
        raise
    if code:
        raise SourceError(name, f"{_exit_text(code)}: no recovery point is made")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _exit_text(code: int) -> str:
    """Describe how a command ended. A shell exits with a code above 128 if a signal killed its command."""
    number = -code if code < 0 else code - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = ""
    if code < 0:
        return f"was killed by {name or f'signal {number}'}"
    return f"exited with code {code}" + (f" ({name})" if name else "")


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
