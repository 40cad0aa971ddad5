"""Backup run over a file tree: opens a job, walks the tree, writes the archive and commits it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from cryostore.agent.archive.reader import Archive
from cryostore.agent.backup.archive_writer import TICK_NS, ArchiveWriter
from cryostore.agent.backup.encryption_policy import choose_policy
from cryostore.agent.backup.job import ResumeNote, committing, heartbeat, open_job
from cryostore.agent.backup.write_only_base import open_write_only_base
from cryostore.agent.entry import Row
from cryostore.agent.errors import SourceError
from cryostore.agent.header import CATALOG
from cryostore.agent.report import Report
from cryostore.agent.source.walk import Directory, Select, Skipped, Walk, is_folder, join
from cryostore.core.errors import StorageUnavailableError
from cryostore.core.time import Clock, wall_clock
from cryostore.model.operation import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions:
    """Source and destination of a backup run. `only` are the paths below the root to back up; None means all."""

    root: bytes
    only: frozenset[bytes] | None = None
    vault: str
    resource: str
    select: Select | None = None
    markers: frozenset[bytes] = frozenset()
    without_caches: bool = False
    one_file_system: bool = False
    stores: frozenset[bytes] = frozenset()
    """Paths of stores below the root: a backup must not read the data that it writes."""
    tags: dict[str, str] = field(default_factory=dict)
    dry_run: bool = False
    wait_seconds: float = 0.0
    """How long the call waits for a server that is away."""


@dataclass(frozen=True, slots=True)
class BackupResult:
    """The recovery point of a run; None for a dry run. `same` means that it has exactly the objects of its base."""

    recovery_point_arn: str | None
    base_arn: str | None
    same: bool


def backup_tree(
    call: Call,
    options: BackupOptions,
    report: Report,
    *,
    note: ResumeNote | None = None,
    now: Clock = wall_clock,
    before_read: Callable[[bytes], None] | None = None,
) -> BackupResult:
    """Back up a tree and count in `report`.

    Raises SourceError if the root itself cannot be read, and the errors of the store: then there is no recovery point.
    Any other failure is an issue of the report. The next run with the same `note` resumes a run that was killed.
    `before_read` is for tests.
    """
    if options.dry_run:
        return dry_run(options, report)
    began_ns = now() * 1_000_000
    walk = _walk(options, report)
    job = open_job(call, options.vault, options.resource, options.tags, note, wait_seconds=options.wait_seconds)
    report.damaged_objects = job.damaged_count
    try:
        with ExitStack() as stack:
            archive = None
            write_only = open_write_only_base(call, job, options.vault, options.resource)
            if job.base.storage_job_id and write_only is None:
                archive = stack.enter_context(closing(Archive(call, job.base.storage_job_id)))
                report.total_bytes = archive.header.file_bytes  # an estimate for the progress bar
            policy = choose_policy(call, options.resource, archive or write_only, job.job_id)
            writer = stack.enter_context(
                closing(
                    ArchiveWriter(
                        call,
                        job.job_id,
                        options.root,
                        options.only,
                        archive,
                        report,
                        policy=policy,
                        write_only=write_only,
                        damaged=job.damaged_numbers,
                        trusted_before_ns=began_ns - TICK_NS,
                        before_read=before_read,
                    )
                )
            )
            stack.enter_context(heartbeat(call, job.job_id))
            objects = _write_archive(walk, _check_not_empty(walk, options, report), writer)
            same = archive is not None and archive.object_checksums() == objects
        committed = job.commit(objects, policy.restore_metadata(_restore_metadata(options)), report.issue_count)
    except BaseException as error:
        ended = job.give_up(error)
        if ended and note is not None:  # otherwise the job is still open, and the next run resumes it
            note.clear()
        raise
    with committing():
        if note is not None:
            note.clear()
        if write_only is not None:
            try:
                write_only.save(committed.recovery_point_arn or "", writer.objects)
            except StorageUnavailableError as error:  # the run has not failed: there is a recovery point
                report.issue(b"", f"{error.message}: {error.hint}")
    return BackupResult(committed.recovery_point_arn, job.base.base_recovery_point_arn, same)


def dry_run(options: BackupOptions, report: Report, on_entry: Callable[[bytes], None] | None = None) -> BackupResult:
    """Count the files that a backup would read, and pass the path of each entry to `on_entry`. Needs no store.

    Raises SourceError if the root itself cannot be read.
    """
    for directory in _check_not_empty(_walk(options, report), options, report):
        report.directories += 1
        report.entries += len(directory.names)
        for name, row in zip(directory.names, map(Row.unpack, directory.rows), strict=True):
            if on_entry is not None:
                on_entry(join(directory.path, name))
            if stat.S_ISREG(row.mode):
                report.files += 1
                report.file_bytes += row.size
    return BackupResult(None, None, same=False)


def _walk(options: BackupOptions, report: Report) -> Walk:
    def on_problem(problem: SourceError) -> None:
        report.issue(problem.path, problem.reason)

    def on_skip(skipped: Skipped) -> None:
        report.skipped[skipped.reason] += 1

    return Walk(
        options.root,
        select=options.select,
        only=options.only,
        markers=options.markers,
        without_caches=options.without_caches,
        one_file_system=options.one_file_system,
        stores=options.stores,
        on_problem=on_problem,
        on_skip=on_skip,
    )


def _check_not_empty(walk: Walk, options: BackupOptions, report: Report) -> Iterator[Directory]:
    """Yield the directories of the walk; at its end, report an issue if everything in the PATHs was excluded."""
    is_empty = True
    for directory in walk:
        is_empty = is_empty and not _has_content(directory, options.only)
        yield directory
    if is_empty and report.skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(report.skipped.items()))
        report.issue(
            b"", f"the recovery point is empty although the source is not: everything was excluded ({reasons})"
        )


def _has_content(directory: Directory, only: frozenset[bytes] | None) -> bool:
    """Return whether this directory has an entry inside a PATH, not just PATHs that are folders and their parents."""
    if only is None or _is_below(directory.path, only):
        return bool(directory.names)
    return any(
        not is_folder(row) and join(directory.path, name) in only
        for name, row in zip(directory.names, directory.rows, strict=True)
    )


def _is_below(path: bytes, only: frozenset[bytes]) -> bool:
    while path and path not in only:
        path = path.rpartition(b"/")[0]
    return path in only


def _write_archive(walk: Walk, directories: Iterator[Directory], writer: ArchiveWriter) -> dict[str, bytes]:
    writer.add_root(walk)
    for directory in directories:
        writer.add_directory(directory)
    return writer.finish()


def _restore_metadata(options: BackupOptions) -> dict[str, str]:
    return {
        "kind": "fileset",
        "rootPaths": json.dumps([os.fsdecode(options.root).encode("utf-8", "replace").decode()]),
        "catalogObject": CATALOG,
        "pathEncoding": "bytes",
        "hostname": os.uname().nodename,
        "os": os.uname().sysname,
        "features": "xattr,acl,sparse,hardlink",
    }
