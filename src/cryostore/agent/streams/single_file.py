"""Single-file archives of streams and disks: the backup job around the content, and a listing with one entry.

Because of the listing, a stream or a disk can be listed, compared, verified and restored like a tree of files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field

from msgspec import UNSET

from cryostore.agent.archive.reader import Archive
from cryostore.agent.backup.encryption_policy import choose_policy
from cryostore.agent.backup.job import OpenJob, ResumeNote, committing, drop_objects, heartbeat, open_job
from cryostore.agent.backup.listing_writer import ListingWriter
from cryostore.agent.backup.run import BackupResult
from cryostore.agent.block import Extra, Kind, encode, is_name
from cryostore.agent.encryption.key_objects import is_key_name
from cryostore.agent.entry import NO_CONTENT, UNTRUSTED_CTIME, Content, Row
from cryostore.agent.header import CATALOG, ContentObject, DiskLayout, Header
from cryostore.agent.source.owners import group_names, user_names
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.agent.upload.object_upload import ObjectUpload
from cryostore.agent.upload.uploader import Uploader
from cryostore.core.digest import DIGEST_BYTES
from cryostore.core.errors import ConfigurationError
from cryostore.model.operation import Call

FILE_MODE = stat.S_IFREG | 0o600
ROOT_MODE = stat.S_IFDIR | 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleFileOptions:
    """Kind and name of the file in its archive, and the destination of the recovery point."""

    kind: str
    name: bytes
    vault: str
    resource: str
    tags: dict[str, str] = field(default_factory=dict)
    wait_seconds: float = 0.0
    """How long the call waits for a server that is away."""

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ConfigurationError(f"{os.fsdecode(self.name)!a} is not a valid file name")


class SingleFileWriter:
    """An open job that writes one file. `base` is the archive of the incremental base; None without one.

    `damaged` are the objects of the base that the store has lost bytes of: they must not be inherited.
    """

    def __init__(self, call: Call, options: SingleFileOptions, job: OpenJob, base: Archive | None) -> None:
        self.call = call
        self.base = base
        self.uploader = Uploader(call, DigestTable(DIGEST_BYTES))
        self._options = options
        self._job = job
        self.damaged = job.damaged
        self.damaged_count = job.damaged_count
        self.policy = choose_policy(call, options.resource, base, job.job_id)
        self._listing_upload = self.upload(CATALOG)
        self._listing = ListingWriter(call, self.uploader, self._listing_upload, base)

    def close(self) -> None:
        """End the threads. Chunks that are not stored yet may never be."""
        self.uploader.close()

    def upload(self, name: str) -> ObjectUpload:
        """Return the upload of an object of the job."""
        return self.policy.upload(self.call, self.job_id, name)

    @property
    def job_id(self) -> str:
        """The id of the job."""
        return self._job.job_id

    def commit(
        self,
        found: dict[str, bytes],
        size: int,
        now_ms: int,
        metadata: dict[str, str],
        *,
        content: Content = NO_CONTENT,
        extras: list[Extra] | None = None,
        objects: list[ContentObject] | None = None,
        disk: DiskLayout | None = None,
        issue_count: int = 0,
    ) -> BackupResult:
        """Write the listing, drop the objects of the base that are not in `found`, and commit the recovery point.

        `found` are the checksums of the content objects by name; all of them are complete or inherited by now.
        """
        header = Header(
            kind=self._options.kind,
            root=b"/",
            entries=2,
            files=1,
            file_bytes=size,
            objects=objects or [],
            users=user_names([os.geteuid()]),
            groups=group_names([os.getegid()]),
            disk=disk or UNSET,
        )
        old = self.base.object_checksums() if self.base else {}
        self._write_entry(size, now_ms, content, extras or [])
        self.uploader.flush()
        is_new = self._listing.complete(header.encode())
        wanted = found | {CATALOG: self._listing_upload.summary() if is_new else old[CATALOG]}
        wanted |= self.policy.store_keys(self.call, self.job_id, old, set())
        drop_objects(self.call, self.job_id, sorted(old.keys() - wanted.keys()))
        shared = {"kind": self._options.kind, "catalogObject": CATALOG, "hostname": os.uname().nodename}
        committed = self._job.commit(wanted, self.policy.restore_metadata(shared | metadata), issue_count)
        content_of_base = {name: digest for name, digest in old.items() if name != CATALOG and not is_key_name(name)}
        same = self.base is not None and content_of_base == found
        return BackupResult(committed.recovery_point_arn, self._job.base.base_recovery_point_arn, same)

    def _write_entry(self, size: int, now_ms: int, content: Content, extras: list[Extra]) -> None:
        owner = (os.geteuid(), os.getegid())
        root = Row(ROOT_MODE, *owner, 0, 0, 0, now_ms * 1_000_000, UNTRUSTED_CTIME, 1)
        entry = Row(FILE_MODE, *owner, 1, 0, size, now_ms * 1_000_000, UNTRUSTED_CTIME, 2)
        known = {0: extras} if extras else {}
        self._listing.add(b"", encode(Kind.ROOT, b"", b"\0", [root.pack()], [NO_CONTENT.pack()], {}))
        names = self._options.name + b"\0"
        self._listing.add(b"", encode(Kind.DIRECTORY, b"", names, [entry.pack()], [content.pack()], known))
        self._listing.finish()


@contextmanager
def opened_writer(call: Call, options: SingleFileOptions, note: ResumeNote | None) -> Iterator[SingleFileWriter]:
    """Open a job and yield its writer. If the context ends with an error, the job is given up with all its data."""
    job = open_job(
        call,
        options.vault,
        options.resource,
        options.tags,
        note,
        options.kind,
        wait_seconds=options.wait_seconds,
    )
    try:
        with ExitStack() as stack:
            base = None
            if job.base.storage_job_id:
                base = stack.enter_context(closing(Archive(call, job.base.storage_job_id)))
            stack.enter_context(heartbeat(call, job.job_id))
            yield stack.enter_context(closing(SingleFileWriter(call, options, job, base)))
    except BaseException as error:
        ended = job.give_up(error)
        if ended and note is not None:  # otherwise the job is still open, and the next run resumes or ends it
            note.clear()
        raise
    if note is not None:
        with committing():
            note.clear()
