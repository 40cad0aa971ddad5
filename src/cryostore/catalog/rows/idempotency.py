"""Idempotency tokens: the request that used a token, and its answer."""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.database import Transaction


class IdempotencyRow(NamedTuple):
    """The first use of a token."""

    request_digest: bytes
    answer: str


def find(transaction: Transaction, operation: str, token: str, *, since_ms: int) -> IdempotencyRow | None:
    """Return the use of a token at `since_ms` or later."""
    row = transaction.row(
        "SELECT request_digest, answer FROM idempotency"
        " WHERE operation = :operation AND token = :token AND created_ms >= :since_ms",
        operation=operation,
        token=token,
        since_ms=since_ms,
    )
    return IdempotencyRow(*row) if row else None


def insert(
    transaction: Transaction, operation: str, token: str, *, request_digest: bytes, answer: str, now_ms: int
) -> None:
    """Store the use of a token, over one that has expired."""
    transaction.run(
        "INSERT INTO idempotency (operation, token, request_digest, answer, created_ms)"
        " VALUES (:operation, :token, :request_digest, :answer, :now_ms)"
        " ON CONFLICT (operation, token) DO UPDATE SET request_digest = excluded.request_digest,"
        " answer = excluded.answer, created_ms = excluded.created_ms",
        operation=operation,
        token=token,
        request_digest=request_digest,
        answer=answer,
        now_ms=now_ms,
    )


def delete_before(transaction: Transaction, before_ms: int, limit: int) -> int:
    """Delete at most `limit` expired tokens; return how many."""
    return transaction.run(
        "DELETE FROM idempotency WHERE (operation, token) IN"
        " (SELECT operation, token FROM idempotency WHERE created_ms < :before_ms LIMIT :limit)",
        before_ms=before_ms,
        limit=limit,
    )
