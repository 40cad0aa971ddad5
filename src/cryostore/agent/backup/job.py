"""Backup job of the agent: started or resumed, kept open, then committed or given up.

Also decides whether the incremental base of a job can be used. If the store has lost bytes of content objects, the
files in them are read and sent again, which also repairs the older recovery points as far as the bytes are still the
same. If anything else of the base is damaged, the job starts without a base.

The heartbeat of a job tells the store that the run is alive while it sends nothing else. The resume note is a file on
this machine with the id of the unfinished job. The store keeps the data that a killed run sent as long as its job is
open; the next run continues the job and sends no acknowledged chunk again.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from msgspec import structs

from cryostore.agent.archive.disk_image import SEGMENT_PREFIX
from cryostore.agent.archive.recovery_points import ROLE_ARN
from cryostore.agent.encryption.key_objects import is_sealed_archive
from cryostore.agent.encryption.keyed_call import KeyedCall, key_of
from cryostore.agent.errors import SourceError
from cryostore.agent.header import CONTENT_PREFIX, FILESET
from cryostore.client import pages
from cryostore.core import interrupts
from cryostore.core.digest import Checksum
from cryostore.core.errors import ConfigurationError, CryostoreError, KeyUnavailableError
from cryostore.core.threads import background_thread
from cryostore.model.errors import (
    ModelError,
    ResourceNotFoundException,
    ServiceUnavailableException,
    ThrottlingException,
)
from cryostore.model.jobs import (
    HEARTBEATS_MISSED_MAX,
    CommitBackupJob,
    CommitBackupJobOutput,
    GetIncrementalBaseBackup,
    GetIncrementalBaseBackupOutput,
    StartBackupJob,
    StopBackupJob,
)
from cryostore.model.objects import DeleteObject, ListObjects
from cryostore.model.operation import Call

MESSAGE_CHARACTERS_MAX = 2000
MAY_BE_MADE = "the recovery point may exist nevertheless: check with `cryo points`"
NOTE_BYTES_MAX = 4096
HEARTBEAT_SECONDS = 60
"""A run sends a request at least this often, while its server answers."""
OPTION_SECONDS_MAX = 3600


class ResumeNote:
    """The locked file that holds the id of the job in progress."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def job_id(self) -> str:
        """Return the job that a run started and did not end; empty if there is none."""
        note = os.pread(self._fd, NOTE_BYTES_MAX, 0)
        return note.decode("ascii", "replace").strip()

    def save(self, job_id: str) -> None:
        """Record the job in progress. A full disk is ignored: then a killed run is not resumed."""
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, job_id.encode(), 0)

    def clear(self) -> None:
        """Record that the job has ended. If that fails, the next run finds that the job is no longer open."""
        with suppress(OSError):
            os.ftruncate(self._fd, 0)


@contextmanager
def locked_note(folder: str | Path | None, *names: str) -> Iterator[ResumeNote | None]:
    """Lock the note for a store, a vault and a resource (`names`) in `folder`, which is created if needed.

    Yields None without a folder, or if the folder cannot be used: then the job of a killed run blocks further runs
    until the store ends it. Raises ConfigurationError while another run holds the lock.
    """
    fd = (
        None
        if folder is None
        else _open_note(folder, sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest())
    )
    if fd is None:
        yield None
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                "a backup of this resource is already running on this machine",
                hint="wait for it, or give another --resource",
            ) from None
        yield ResumeNote(fd)
    finally:
        os.close(fd)


def _open_note(folder: str | Path, name: str) -> int | None:
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        return os.open(os.path.join(folder, f"{name}.job"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None


@contextmanager
def committing() -> Iterator[None]:
    """Add to a Ctrl-C, during a commit and the work after it, the note that the recovery point may exist."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(MAY_BE_MADE)
        raise


class OpenJob:
    """An open backup job with its base. The code that opens one must end it, with `commit` or `give_up`.

    `damaged` are the objects of the base that the store has lost bytes of. `damaged_count` is their number, or that of
    a base that could not be used for this reason.
    """

    def __init__(
        self, call: Call, resource: str, base: GetIncrementalBaseBackupOutput, *, unusable_damaged_count: int = 0
    ) -> None:
        self._call = call
        self._resource = resource
        self.job_id = base.backup_job_id
        self.base = base
        self.damaged = frozenset(base.damaged_objects or ())
        self.damaged_count = unusable_damaged_count or len(self.damaged)

    @property
    def damaged_numbers(self) -> frozenset[int]:
        """Return the numbers of the damaged content objects."""
        numbers = [name.removeprefix(CONTENT_PREFIX) for name in self.damaged if name.startswith(CONTENT_PREFIX)]
        return frozenset(int(number) for number in numbers if number.isascii() and number.isdigit())

    def commit(
        self, objects: dict[str, bytes], restore_metadata: dict[str, str], issue_count: int
    ) -> CommitBackupJobOutput:
        """Turn the written objects into a recovery point.

        `objects` are the checksums of all objects that it must have, by name. Raises IllegalArgumentException if the
        job has any others.
        """
        whole = hashlib.sha256()
        for name in sorted(objects, key=str.encode):
            whole.update(name.encode() + b"\0" + objects[name])
        operation = CommitBackupJob(
            backup_job_id=self.job_id,
            object_count=len(objects),
            objects_checksum=whole.hexdigest(),
            objects_checksum_algorithm="SUMMARY",
            resource_name=self._resource,
            issue_count=issue_count,
            restore_metadata=restore_metadata,
            discard_open_uploads=True,
        )
        interrupts.check()  # the last moment at which an interrupt is sure to leave no recovery point
        with committing():
            return self._call.call(operation)

    def give_up(self, error: BaseException) -> bool:
        """End the job without a recovery point because of `error`. Return whether the store confirmed that."""
        reason = _reason(error)
        if isinstance(self._call, KeyedCall):
            reason = "failed"  # the reason may name a path
        message = "".join(character for character in reason if character.isprintable())[:MESSAGE_CHARACTERS_MAX]
        try:
            self._call.call(
                CommitBackupJob(
                    backup_job_id=self.job_id, outcome="FAILED", status_message=message, discard_open_uploads=True
                )
            )
        except CryostoreError:
            return False
        return True


def _reason(error: BaseException) -> str:
    if isinstance(error, CryostoreError):
        return error.message
    if isinstance(error, SourceError):
        return error.reason
    return "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__


def open_job(
    call: Call,
    vault: str,
    resource: str,
    tags: dict[str, str],
    note: ResumeNote | None = None,
    kind: str = FILESET,
    *,
    wait_seconds: float = 0.0,
) -> OpenJob:
    """Resume the job of a killed run if possible, otherwise start a new one; without a base if that is unreadable.

    `wait_seconds` is how long the run waits for a server that is away: the store keeps its job open for that time.

    Raises the errors of the store; ServiceUnavailableException while another job of the resource is running;
    KeyUnavailableError if the base is unreadable and either only the base or only this run is encrypted.
    """
    if note is not None and (job_id := note.job_id()):
        if (job := _resumed(call, resource, job_id)) is not None:
            return job
        with suppress(ModelError):
            call.call(StopBackupJob(backup_job_id=job_id))
        note.clear()
    start = StartBackupJob(
        backup_vault_name=vault,
        resource_arn=resource_arn(resource, kind),
        iam_role_arn=ROLE_ARN,
        recovery_point_tags=tags or None,
        backup_options={"HeartbeatSeconds": str(heartbeat_option_seconds(wait_seconds))},
    )
    base = _started(call, start, note)
    if not _is_unreadable(base):
        return OpenJob(call, resource, base)
    try:
        _check_same_encryption(call, base)
    finally:
        with suppress(ModelError):
            call.call(StopBackupJob(backup_job_id=base.backup_job_id))
    start = structs.replace(start, backup_options=(start.backup_options or {}) | {"IncrementalBase": "none"})
    new_base = _started(call, start, note)
    return OpenJob(call, resource, new_base, unusable_damaged_count=base.damaged_object_count or 0)


def resource_arn(name: str, kind: str = FILESET) -> str:
    """Return the ARN of a resource of this name: a file tree, a stream or a disk."""
    return f"arn:aws:cryo:::{kind}:{name}"


def _started(call: Call, start: StartBackupJob, note: ResumeNote | None) -> GetIncrementalBaseBackupOutput:
    """Start a job, record it in the note, and return its base."""
    job_id = call.call(start).backup_job_id or ""
    if note is not None:
        note.save(job_id)
    try:
        return call.call(GetIncrementalBaseBackup(backup_job_id=job_id))
    except ThrottlingException as error:
        with suppress(CryostoreError):
            call.call(StopBackupJob(backup_job_id=job_id))
        raise ServiceUnavailableException(
            f"another backup of this resource is running: {error.message}",
            hint="wait for it; if its agent is dead, a later run replaces it 3 minutes plus the --wait of the dead run"
            " (8 minutes by default) after its last request",
        ) from error


def _resumed(call: Call, resource: str, job_id: str) -> OpenJob | None:
    """Return an unfinished job if it is still open and its view does not differ from its base."""
    try:
        base = call.call(GetIncrementalBaseBackup(backup_job_id=job_id))
        view = summaries(call, job_id)
        old = summaries(call, base.storage_job_id) if base.storage_job_id else {}
    except ModelError:
        return None
    return OpenJob(call, resource, base) if view == old and not _is_unreadable(base) else None


def _is_unreadable(base: GetIncrementalBaseBackupOutput) -> bool:
    """Return whether more than content is damaged: then the base cannot be used."""
    names = base.damaged_objects or []
    only_content = all(name.startswith((CONTENT_PREFIX, SEGMENT_PREFIX)) for name in names)
    return not only_content or len(names) < (base.damaged_object_count or 0)


def _check_same_encryption(call: Call, base: GetIncrementalBaseBackupOutput) -> None:
    """Raise KeyUnavailableError if the base is sealed and the run has no key, or the other way round.

    Otherwise a run without the base would send in the clear the data that its owner had encrypted.
    """
    is_sealed = is_sealed_archive([each.name for each in pages.objects(call, base.storage_job_id or "")])
    has_key = key_of(call) is not None
    if is_sealed and not has_key:
        raise KeyUnavailableError(
            "the last backup of this resource is encrypted, and this run has no key",
            hint="give the key with --key FILE, or give another --resource",
        )
    if has_key and not is_sealed:
        raise KeyUnavailableError(
            "the last backup of this resource is not encrypted, and this run has a key",
            hint="leave out --key, or give another --resource",
        )


def drop_objects(call: Call, job_id: str, names: Iterable[str]) -> None:
    """Remove objects of the base from a job. Ignores missing ones: the answer to the first request may have been lost.

    May be repeated.
    """
    for name in names:
        with suppress(ResourceNotFoundException):
            call.call(DeleteObject(backup_job_id=job_id, object_name=name))


def summaries(call: Call, storage_job_id: str) -> dict[str, bytes]:
    """Return the checksum of each object that a storage job sees, by name."""
    listed = pages.objects(call, storage_job_id)
    return {each.name: Checksum.parse(each.object_checksum).digest for each in listed}


def heartbeat_option_seconds(wait_seconds: float) -> int:
    """The backup option `HeartbeatSeconds` of a run that waits up to `wait_seconds` for an unreachable server.

    Three intervals of this length are longer than a live run can be silent. Otherwise, when the server is back, another
    run could end the job of a run that still waits.
    """
    return min(HEARTBEAT_SECONDS + math.ceil(wait_seconds / HEARTBEATS_MISSED_MAX), OPTION_SECONDS_MAX)


@contextmanager
def heartbeat(call: Call, storage_job_id: str, seconds_between: float = HEARTBEAT_SECONDS / 2) -> Iterator[None]:
    """Send a small request for the job every `seconds_between` while the context lasts.

    Ignores errors: the run meets them when it sends bytes. The store expects a request within twice that time.
    """

    def run(ended: threading.Event) -> None:
        while not ended.wait(seconds_between):
            with suppress(CryostoreError):
                call.call(ListObjects(storage_job_id=storage_job_id, max_results=1))

    with background_thread("heartbeat", run):
        yield
