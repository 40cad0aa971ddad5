"""Idempotency tokens as time passes: lapsed ones are forgotten."""

from __future__ import annotations

from cryostore.catalog.rows import idempotency
from cryostore.service import Context

TOKENS_PER_ROUND = 1000


def forget_lapsed(context: Context) -> None:
    """Forget tokens older than they are honoured."""
    before_ms = context.clock() - context.settings.idempotency_ms
    context.database.write(lambda transaction: idempotency.delete_before(transaction, before_ms, TOKENS_PER_ROUND))
