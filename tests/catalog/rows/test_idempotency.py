"""Rows of idempotency tokens."""

from __future__ import annotations

from cryostore.catalog.rows import idempotency
from cryostore.catalog.rows.idempotency import IdempotencyRow


def remember(catalog, token, now_ms, *, operation="StartBackupJob", answer="job"):
    catalog.write(lambda t: idempotency.insert(t, operation, token, request_digest=b"d", answer=answer, now_ms=now_ms))


def find(catalog, token, since_ms, operation="StartBackupJob"):
    return catalog.read(lambda t: idempotency.find(t, operation, token, since_ms=since_ms))


def test_a_token_is_known_for_its_operation_until_it_expires(catalog):
    remember(catalog, "token", 100)
    assert find(catalog, "token", 100) == IdempotencyRow(b"d", "job")
    assert find(catalog, "token", 101) is None
    assert find(catalog, "token", 0, "StartRestoreJob") is None
    assert find(catalog, "Token", 0) is None


def test_an_expired_token_may_be_used_again(catalog):
    remember(catalog, "token", 100)
    remember(catalog, "token", 200, answer="other")
    assert find(catalog, "token", 150) == IdempotencyRow(b"d", "other")


def test_expired_tokens_are_deleted_in_steps(catalog):
    for number in range(5):
        remember(catalog, f"token {number}", number)
    assert [catalog.write(lambda t: idempotency.delete_before(t, 4, 3)) for _ in range(3)] == [3, 1, 0]
    assert find(catalog, "token 4", 0) is not None
