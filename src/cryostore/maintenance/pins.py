"""Pins: the open jobs that keep recovery points and chunks from being deleted."""

from __future__ import annotations

from dataclasses import dataclass

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import jobs, restore_jobs, uploads, vaults
from cryostore.service import Context


@dataclass(frozen=True, slots=True)
class Pin:
    """An open job and the recovery point that it keeps. Times are in milliseconds since 1970.

    `kind` is backup or restore. `point_id` is the incremental base of a backup, or the recovery point that is restored.
    The job times out at `lapses_ms` unless it shows activity before.
    """

    kind: str
    id: str
    state: str
    vault: str | None
    resource_arn: str | None
    point_id: str | None
    open_uploads: int
    begun_ms: int
    active_ms: int
    lapses_ms: int


def pins(context: Context) -> list[Pin]:
    """Return all pins, the oldest first."""
    return sorted(context.database.read(lambda transaction: _pins(context, transaction)), key=lambda pin: pin.begun_ms)


def _pins(context: Context, transaction: Transaction) -> list[Pin]:
    settings = context.settings
    found = [
        Pin(
            kind="backup",
            id=job.job_id,
            state=job.state,
            vault=_vault(transaction, job.vault_id),
            resource_arn=job.resource_arn,
            point_id=job.base_point_id,
            open_uploads=uploads.counts(transaction, job.job_id).open,
            begun_ms=job.created_ms,
            active_ms=job.active_ms,
            lapses_ms=min(job.complete_by_ms, job.active_ms + settings.idle_job_ms)
            if job.initiated_ms is not None
            else job.start_by_ms,
        )
        for job in jobs.not_ended(transaction)
    ]
    found += [
        Pin(
            kind="restore",
            id=job.job_id,
            state=job.status,
            vault=_vault(transaction, job.vault_id),
            resource_arn=job.resource_arn,
            point_id=job.point_id,
            open_uploads=0,
            begun_ms=job.created_ms,
            active_ms=job.active_ms,
            lapses_ms=job.active_ms + settings.idle_restore_job_ms,
        )
        for job in restore_jobs.not_ended(transaction)
    ]
    return found


def _vault(transaction: Transaction, vault_id: int) -> str | None:
    row = vaults.by_id(transaction, vault_id)
    return None if row is None else row.name
