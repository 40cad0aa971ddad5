"""The way into the store for every byte a job writes: the running job, the payload checked once, blob first.

Shared by the handlers that write objects and chunks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

from cryostore.catalog.database import Answer, FixedStatements, Statement, Transaction, UnexpectedRowCountError
from cryostore.catalog.rows import chunks, jobs, packs
from cryostore.catalog.rows.chunks import ChunkRow
from cryostore.catalog.rows.jobs import JobRow
from cryostore.chunks.envelope import Kind
from cryostore.core.digest import Checksum, Payload
from cryostore.model.errors import IllegalArgumentException, ResourceNotFoundException
from cryostore.service.access import authorise
from cryostore.service.context import Caller, Context
from cryostore.service.lineages.start_job import start_job
from cryostore.service.operations.jobs import find_job
from cryostore.service.operations.vaults import vault_name


class Known(NamedTuple):
    """What the catalog says of bytes before they are stored: whether the vault holds them, and in which epoch."""

    held: bool
    epoch: int


class _Stored(NamedTuple):
    """Bytes that are durable: `row` says where if they were stored just now, None if the vault had them.

    `epoch` is one that was current before they were stored, `pack_bytes` the size of their pack unless it grows.
    """

    digest: bytes
    row: ChunkRow | None
    epoch: int
    pack_bytes: int | None = None


class _ChunkVanishedError(Exception):
    """Bytes the vault had are gone since; they must be stored anew. Never leaves this module."""


def running_job(context: Context, job_id: str, action: str, caller: Caller) -> JobRow:
    """The job that a write goes to, started if it was waiting.

    Raises ResourceNotFoundException, AccessDeniedException, ThrottlingException while it must wait, and
    IllegalArgumentException once it has ended.
    """
    return require_running(started_job(context, job_id, action, caller))


def require_running(job: JobRow) -> JobRow:
    """The job itself. Raises IllegalArgumentException once it has ended."""
    if job.state != "RUNNING" or job.segment is None:
        raise not_running(job)
    return job


def started_job(context: Context, job_id: str, action: str, caller: Caller) -> JobRow:
    """The job that a write goes to, started if it was waiting, or ended. Raises as `running_job` does otherwise."""
    return started_job_and(context, job_id, action, caller, lambda _transaction, _job: None)[0]


def started_job_and(
    context: Context, job_id: str, action: str, caller: Caller, look: Callable[[Transaction, JobRow], Answer]
) -> tuple[JobRow, Answer]:
    """The job, as `started_job` gives it, and what `look` finds in the snapshot the job was found in."""

    def find(transaction: Transaction) -> tuple[JobRow, Answer]:
        job = find_job(transaction, job_id)
        return job, look(transaction, job)

    return started_and_seen(context, action, caller, find)


def started_and_seen(
    context: Context, action: str, caller: Caller, find: Callable[[Transaction], tuple[JobRow, Answer]]
) -> tuple[JobRow, Answer]:
    """As `started_job_and`, for a job and what goes with it that are found together."""

    def work(transaction: Transaction) -> tuple[JobRow, Answer]:
        job, answer = find(transaction)
        if not caller.root:
            authorise(caller, action, vault_name(transaction, job.vault_id))
        return job, answer

    job, answer = context.database.read(work)
    return start_job(context, job) if job.state in ("CREATED", "PENDING") else job, answer


def not_running(job: JobRow) -> IllegalArgumentException:
    """The error for a write to a job that has ended."""
    return IllegalArgumentException(f"BackupJobId: {job.job_id} is {job.state} and takes no more writes")


def fence(
    context: Context, transaction: Transaction, job: JobRow, *, bytes_transferred: int = 0, changes: int = 0
) -> None:
    """Make sure, within the transaction that writes to it, that the job is still running."""
    if not jobs.touch(
        transaction, job.job_id, bytes_transferred=bytes_transferred, now_ms=context.clock(), changes=changes
    ):
        current = jobs.find(transaction, job.job_id)
        if current is None:
            raise ResourceNotFoundException(f"Backup job {job.job_id} does not exist.")
        raise not_running(current)


def check_payload(
    payload: Payload, names: tuple[str, str], length: int | None, checksum: str | None
) -> Checksum | None:
    """Check a payload against its stated length and checksum, whose member names are `names` (B.12).

    Answers the checksum as parsed. Raises IllegalArgumentException with both values.
    """
    if length is not None and length != len(payload):
        raise IllegalArgumentException(f"{names[0]}: {length}, but {len(payload)} bytes were received")
    if checksum is None:
        return None
    stated = Checksum.parse(checksum)
    if stated.digest != payload.sha256:
        received = Checksum(payload.sha256, stated.form).text()
        raise IllegalArgumentException(f"{names[1]}: {checksum}, but the received bytes give {received}")
    return stated


def write(
    context: Context,
    vault_id: int,
    payload: Payload | None,
    work: Callable[[Transaction], None],
    kind: Kind = Kind.CHUNK,
    *,
    known: Known | None = None,
    at_once: Callable[[], list[Statement]] | None = None,
) -> None:
    """Make a payload durable, then run `work`, which refers to it, in the transaction that records it.

    A payload the vault holds already is not stored again; should it vanish before the transaction, it is. `work` may
    run several times; what it raises is raised here, and then nothing has happened. `known` is what `look_up` said of
    the payload, if whoever calls has asked already.
    `at_once` gives what `work` does as statements that change one row each if all is as usual: where that spares round
    trips, they take its place.
    """
    while True:
        stored = None if payload is None else _store(context, vault_id, payload, kind, known)
        known = None
        recording = _Recording(context, vault_id, stored, work, at_once)
        try:
            recording.write()
        except _ChunkVanishedError:
            continue
        if stored is not None and payload is not None:
            (context.tally.shared if stored.row is None else context.tally.stored)(len(payload))
        return


class _Recording:
    """The transaction that records what was stored, and does what refers to it."""

    def __init__(
        self,
        context: Context,
        vault_id: int,
        stored: _Stored | None,
        work: Callable[[Transaction], None],
        at_once: Callable[[], list[Statement]] | None,
    ) -> None:
        self._context = context
        self._vault_id = vault_id
        self._stored = stored
        self._work = work
        self._at_once = None if context.store.packs_grow else at_once  # a pack that grows has its row, mostly

    def write(self) -> None:
        """Raises _ChunkVanishedError, or what `work` raises; then nothing has happened."""
        stored = self._stored
        if self._at_once is not None and stored is not None and stored.row is not None:
            statements = [*self._insertion(stored, stored.row), *self._at_once()]
            with contextlib.suppress(UnexpectedRowCountError):  # step by step, then
                self._context.database.write(FixedStatements(statements))
                return
        self._context.database.write(self._run)

    def _run(self, transaction: Transaction) -> None:
        stored = self._stored
        if stored is not None and not _record(self._context, transaction, self._vault_id, stored):
            raise _ChunkVanishedError
        self._work(transaction)
        if whole := self._context.store.take_whole():  # else who opens the store next would look through each
            packs.close_all(transaction, whole)

    def _insertion(self, stored: _Stored, row: ChunkRow) -> tuple[Statement, Statement]:
        return chunks.insert_statements(
            self._vault_id,
            stored.digest,
            row,
            epoch=stored.epoch,
            now_ms=self._context.clock(),
            pack_bytes=stored.pack_bytes,
        )


def _record(context: Context, transaction: Transaction, vault_id: int, stored: _Stored) -> bool:
    """Record bytes, or that they are used again; False if they were given up meanwhile."""
    if stored.row is None:
        return chunks.mark_used(transaction, vault_id, stored.digest)
    return chunks.insert(
        transaction,
        vault_id,
        stored.digest,
        stored.row,
        epoch=stored.epoch,
        now_ms=context.clock(),
        pack_bytes=stored.pack_bytes,
    )


def look_up(transaction: Transaction, vault_id: int, payload: Payload) -> Known:
    """What the catalog says of a payload that is to be stored."""
    return Known(*chunks.known_in_epoch(transaction, vault_id, payload.sha256))


def _store(context: Context, vault_id: int, payload: Payload, kind: Kind, known: Known | None) -> _Stored:
    digest = payload.sha256
    if known is None:
        known = context.database.read(lambda transaction: look_up(transaction, vault_id, payload))
    if known.held:
        return _Stored(digest, None, known.epoch)
    key_number, key = context.keys.sealing(vault_id)
    location = context.store.put(payload, key, kind)
    row = ChunkRow(key_number, location.pack_id, location.offset, location.length, len(payload))
    return _Stored(digest, row, known.epoch, location.pack_bytes)
