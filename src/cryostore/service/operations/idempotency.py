"""Idempotency of the requests that start jobs: a repeated token gets the answer of the first request."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import idempotency
from cryostore.model.errors import InvalidParameterValueException
from cryostore.model.jobs import StartBackupJob
from cryostore.model.operation import Operation
from cryostore.model.restore_jobs import StartRestoreJob
from cryostore.service.context import Context

Started = TypeVar("Started")


def find_repeated(
    context: Context,
    transaction: Transaction,
    operation: StartBackupJob | StartRestoreJob,
    answer: str,
    find: Callable[[str], Started | None],
) -> Started | None:
    """The job that an earlier request with this idempotency token started; None for a new token.

    A new token is recorded with `answer`, the id of the job that the caller starts. `find` looks up the job of an
    earlier answer; if that job is deleted, the token counts as new. Raises InvalidParameterValueException if the token
    was used with other arguments.
    """
    if (token := operation.idempotency_token) is None:
        return None
    now_ms = context.clock()
    digest = arguments_digest(operation, "idempotency_token")
    name = type(operation).__name__
    earlier = idempotency.find(transaction, name, token, since_ms=now_ms - context.settings.idempotency_ms)
    if earlier is not None and earlier.request_digest != digest:
        raise InvalidParameterValueException("IdempotencyToken: was used before with other parameters")
    started = find(earlier.answer) if earlier is not None else None
    if started is None:
        idempotency.insert(transaction, name, token, request_digest=digest, answer=answer, now_ms=now_ms)
    return started


def arguments_digest(operation: Operation[Any], *left_out: str) -> bytes:
    """A digest of an operation's arguments without those `left_out`, the same on any server."""
    arguments = {name: value for name, value in msgspec.structs.asdict(operation).items() if name not in left_out}
    return hashlib.sha256(msgspec.json.encode(arguments, order="deterministic")).digest()
