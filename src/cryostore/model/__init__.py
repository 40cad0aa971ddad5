"""The API as data: every operation of both services, declared once, and the errors.

Importing this package registers all operations in `OPERATIONS`.
"""

from __future__ import annotations

from cryostore.model import chunks, jobs, objects, recovery_points, restore_jobs, vaults
from cryostore.model.operation import OPERATIONS, Api, Declaration, Operation, Output

__all__ = [
    "OPERATIONS",
    "Api",
    "Declaration",
    "Operation",
    "Output",
    "chunks",
    "jobs",
    "objects",
    "recovery_points",
    "restore_jobs",
    "vaults",
]
