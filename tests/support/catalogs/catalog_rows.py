"""Rows of the catalog, with defaults for every column that a test does not set."""

from __future__ import annotations

from cryostore.catalog.rows.jobs import JobRow
from cryostore.catalog.rows.recovery_points import PointRow
from cryostore.catalog.rows.restore_jobs import RestoreJobRow

DEFAULTS = {
    "vault_id": 1, "point_id": "P", "job_id": "J", "resource_arn": "arn:r", "resource_type": "Generic",
    "role_arn": "arn:role", "state": "CREATED", "status": "CREATING", "created_ms": 0, "start_by_ms": 0,
    "complete_by_ms": 0, "active_ms": 0, "options": "{}", "base_selection": "LATEST", "revision": 0,
    "bytes_transferred": 0, "size_bytes": 0, "object_count": 0,
    "restore_metadata": "{}", "tags": "{}", "metadata": "{}", "point_created_ms": 0,
}  # fmt: skip


def filled(kind, values):
    return kind(**{field: values.get(field, DEFAULTS.get(field)) for field in kind._fields})


def job_row(job_id="J", **values):
    """Return a backup job, by default one that waits."""
    return filled(JobRow, {"job_id": job_id, "point_id": f"{job_id}-P", **values})


def point_row(point_id="P", **values):
    """Return a recovery point, by default one that is being created."""
    return filled(PointRow, {"point_id": point_id, **values})


def restore_job_row(job_id="R", **values):
    """Return a restore job, by default one that waits."""
    return filled(RestoreJobRow, {"job_id": job_id, "lineage_id": 1, "generation": 1, "status": "PENDING", **values})
