"""Lapsed idempotency tokens are forgotten, no sooner."""

from __future__ import annotations

from cryostore.catalog.rows import idempotency as rows
from cryostore.core.time import DAY_MS
from cryostore.maintenance.duties import idempotency


def remember(model, token):
    model.database.write(
        lambda t: rows.insert(t, "StartBackupJob", token, request_digest=b"", answer="", now_ms=model.clock())
    )


def known(model):
    return [row[0] for row in model.database.read(lambda t: t.rows("SELECT token FROM idempotency ORDER BY token"))]


def test_a_token_is_forgotten_when_it_is_honoured_no_more(model, snapshot):
    remember(model, "old")
    model.clock.advance(1)
    remember(model, "young")
    model.clock.advance(DAY_MS - 1)
    before = snapshot()
    idempotency.forget_lapsed(model.context)
    assert snapshot() == before
    model.clock.advance(1)
    idempotency.forget_lapsed(model.context)
    assert known(model) == ["young"]
    assert snapshot("idempotency") == {name: left for name, left in before.items() if name != "idempotency"}


def test_many_take_several_rounds(model, monkeypatch):
    monkeypatch.setattr(idempotency, "TOKENS_PER_ROUND", 2)
    for number in range(5):
        remember(model, f"{number}")
    model.clock.advance(2 * DAY_MS)
    left = []
    for _ in range(3):
        idempotency.forget_lapsed(model.context)
        left.append(len(known(model)))
    assert left == [3, 1, 0]
