"""A run of `cryo backup` over a file tree: open a job, walk and write, commit."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from cryostore.agent.archive.reader import Archive
from cryostore.agent.backup.archive_writer import TICK_NS, ArchiveWriter
from cryostore.agent.backup.choose_policy import remembered_base, secrecy_for
from cryostore.agent.backup.damaged_base import content_numbers
from cryostore.agent.backup.job import committing, open_job
from cryostore.agent.backup.unfinished import Unfinished
from cryostore.agent.entry import Row
from cryostore.agent.errors import SourceError
from cryostore.agent.header import CATALOG
from cryostore.agent.report import Report
from cryostore.agent.source.walk import Directory, Select, Skipped, Walk, is_folder, join
from cryostore.agent.upload.heartbeat import heartbeat
from cryostore.core.errors import StorageUnavailableError
from cryostore.core.time import Clock, wall_clock
from cryostore.model.operation import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to back up, and how it is called. `only` are paths below the root; the others are not looked at."""

    root: bytes
    only: frozenset[bytes] | None = None
    vault: str
    resource: str
    select: Select | None = None
    markers: frozenset[bytes] = frozenset()
    without_caches: bool = False
    one_file_system: bool = False
    stores: frozenset[bytes] = frozenset()
    """Paths below the root where a backup is not to read what it writes."""
    tags: dict[str, str] = field(default_factory=dict)
    dry_run: bool = False
    wait_seconds: float = 0.0
    """How long the call waits for a server that is away."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The recovery point that was made; none of a dry run. `same` means that it has the objects of its base."""

    recovery_point_arn: str | None
    base_arn: str | None
    same: bool


def backup(
    call: Call,
    options: Options,
    report: Report,
    *,
    unfinished: Unfinished | None = None,
    now: Clock = wall_clock,
    before_read: Callable[[bytes], None] | None = None,
) -> Outcome:
    """Back a tree up and count in `report`.

    Raises SourceError if the root itself cannot be read, and whatever the store raises: then there is no recovery
    point. Everything else that goes wrong is an issue of the report. A run that is killed can be gone on with if the
    next one gets the same `unfinished`. `before_read` is for tests.
    """
    if options.dry_run:
        return dry_run(options, report)
    began_ns = now() * 1_000_000
    walk = _walk(options, report)
    job = open_job(call, options.vault, options.resource, options.tags, unfinished, wait_seconds=options.wait_seconds)
    report.damaged_objects = job.damaged_count
    try:
        with ExitStack() as stack:
            archive = None
            remembered = remembered_base(call, job, options.vault, options.resource)
            if job.base.storage_job_id and remembered is None:
                archive = stack.enter_context(closing(Archive(call, job.base.storage_job_id)))
                report.total_bytes = archive.header.file_bytes  # about as many as last time
            secrecy = secrecy_for(call, options.resource, archive or remembered, job.job_id)
            writer = stack.enter_context(
                closing(
                    ArchiveWriter(
                        call,
                        job.job_id,
                        options.root,
                        options.only,
                        archive,
                        report,
                        secrecy=secrecy,
                        remembered=remembered,
                        damaged=content_numbers(job.damaged),
                        trusted_before_ns=began_ns - TICK_NS,
                        before_read=before_read,
                    )
                )
            )
            stack.enter_context(heartbeat(call, job.job_id))
            objects = _write(walk, _noting_emptiness(walk, options, report), writer)
            same = archive is not None and archive.object_checksums() == objects
        committed = job.commit(objects, secrecy.restore_metadata(_restore_metadata(options)), report.issue_count)
    except BaseException as error:
        ended = job.give_up(error)
        if ended and unfinished is not None:  # else the job is open, and stays noted: the next run goes on with it
            unfinished.end()
        raise
    with committing():
        if unfinished is not None:
            unfinished.end()
        if remembered is not None:
            try:
                remembered.save(committed.recovery_point_arn or "", writer.objects)
            except StorageUnavailableError as error:  # there is a recovery point: the run has not failed
                report.issue(b"", f"{error.message}: {error.hint}")
    return Outcome(committed.recovery_point_arn, job.base.base_recovery_point_arn, same)


def dry_run(options: Options, report: Report, on_entry: Callable[[bytes], None] | None = None) -> Outcome:
    """Count what would be backed up, and tell the path of each entry. Needs no store. Raises as `backup`."""
    for directory in _noting_emptiness(_walk(options, report), options, report):
        report.directories += 1
        report.entries += len(directory.names)
        for name, row in zip(directory.names, map(Row.unpack, directory.rows), strict=True):
            if on_entry is not None:
                on_entry(join(directory.path, name))
            if stat.S_ISREG(row.mode):
                report.files += 1
                report.file_bytes += row.size
    return Outcome(None, None, same=False)


def _walk(options: Options, report: Report) -> Walk:
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


def _noting_emptiness(walk: Walk, options: Options, report: Report) -> Iterator[Directory]:
    """The directories of the walk; at its end it is an issue if all that the PATHs hold was left out."""
    is_empty = True
    for directory in walk:
        is_empty = is_empty and not _has_content(directory, options.only)
        yield directory
    if is_empty and report.skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(report.skipped.items()))
        report.issue(b"", f"the recovery point is empty, the source is not: everything in it is left out ({reasons})")


def _has_content(directory: Directory, only: frozenset[bytes] | None) -> bool:
    """Whether something of a PATH is in this directory, beside the PATHs that are folders and those above them."""
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


def _write(walk: Walk, directories: Iterator[Directory], writer: ArchiveWriter) -> dict[str, bytes]:
    writer.root(walk)
    for directory in directories:
        writer.directory(directory)
    return writer.finish()


def _restore_metadata(options: Options) -> dict[str, str]:
    return {
        "kind": "fileset",
        "rootPaths": json.dumps([os.fsdecode(options.root).encode("utf-8", "replace").decode()]),
        "catalogObject": CATALOG,
        "pathEncoding": "bytes",
        "hostname": os.uname().nodename,
        "os": os.uname().sysname,
        "features": "xattr,acl,sparse,hardlink",
    }
