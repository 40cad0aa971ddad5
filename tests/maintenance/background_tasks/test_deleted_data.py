"""Background tasks remove the rows of failed jobs, deleted recovery points, deleted vaults and expired tokens."""

from __future__ import annotations

import pytest

from cryostore.catalog.rows import idempotency, recovery_points
from cryostore.core.time import DAY_MS
from cryostore.maintenance import background_tasks


def object_rows(model):
    return model.database.read(lambda t: t.row("SELECT count(*) FROM object"))[0]


@pytest.mark.parametrize("how", ["stop", "give up"])
def test_rows_of_ended_jobs_are_rolled_back(model, how):
    point = model.commit(model.put(model.run(), b"a", b"b"))
    job = model.remove(model.put(model.run(), b"a", b"c", b"d"), b"b")
    model.end(job, how)
    background_tasks.roll_back_failed_jobs(model.context)
    model.see_aborted()
    assert job.ended
    assert model.dirty() == []
    assert object_rows(model) == len(point.view)


def test_rows_of_running_jobs_stay(model, snapshot):
    model.put(model.run(), b"a", b"b")
    before = snapshot()
    background_tasks.roll_back_failed_jobs(model.context)
    background_tasks.delete_unused_lineages(model.context)
    assert snapshot() == before


def test_a_round_rolls_back_a_bounded_part_of_a_job(model, monkeypatch):
    monkeypatch.setattr(background_tasks, "BATCHES_MAX", 2)
    model.end(model.put(model.run(), *(b"%02d" % number for number in range(10))))
    left = []
    while model.dirty():
        background_tasks.roll_back_failed_jobs(model.context)
        left.append(object_rows(model))
    assert left == [6, 2, 0]


def test_a_retired_lineage_is_deleted_with_the_rows_that_only_it_saw(model):
    """Its parent recovery point is already deleted."""
    first = model.commit(model.put(model.run(), b"a", b"b"))
    model.commit(model.put(model.run(), b"a", b"b", b"c"))
    branch = model.commit(model.put(model.run(base=first), b"x"))
    model.delete(first)
    model.forget(*model.deleting(), 20)
    assert object_rows(model) == 6
    model.delete(branch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cryostore.service.lineages.remove_unneeded_lineages", lambda *_, **__: None)
        model.forget(*model.deleting(), 20)
    assert model.retired()
    background_tasks.delete_unused_lineages(model.context)
    assert not model.retired()
    assert object_rows(model) == 3


def test_only_points_being_deleted_are_removed(model):
    """Their deletion was requested, and the request was interrupted."""
    points = [model.commit(model.put(model.run(), b"a", b"%d" % number)) for number in range(3)]
    model.delete(points[1])
    background_tasks.finish_point_deletions(model.context)
    model.see_forgotten()
    assert model.live() == [points[0], points[2]]
    assert points[1].point_id not in model.points
    model.check()


def test_a_round_deletes_a_bounded_part_of_a_point(model, monkeypatch):
    monkeypatch.setattr(background_tasks, "BATCHES_MAX", 1)
    monkeypatch.setattr(background_tasks, "POINTS_PER_ROUND", 1)
    for number in range(2):
        model.delete(model.commit(model.put(model.run(base="none"), *(b"%d%d" % (number, name) for name in range(5)))))
    rounds = 0
    while model.deleting():
        background_tasks.finish_point_deletions(model.context)
        rounds += 1
        assert rounds < 20
    assert rounds > 2
    model.see_forgotten()
    assert model.points == {}


def test_points_being_created_or_complete_stay(model, snapshot):
    model.commit(model.put(model.run(), b"a"))
    model.start()
    before = snapshot()
    background_tasks.finish_point_deletions(model.context)
    assert snapshot() == before
    assert model.database.read(lambda t: recovery_points.deleting(t, 10)) == []


@pytest.fixture
def fill(model):
    def fill(vault_id, count):
        for number in range(count):
            values = {"vault_id": vault_id, "digest": bytes([number]) * 32, "pack_offset": number}
            model.database.write(
                lambda t, values=values: t.run(
                    "INSERT INTO chunk (vault_id, digest, key_number, pack_number, pack_offset, sealed_length, length)"
                    " VALUES (:vault_id, :digest, 1, 1, :pack_offset, 10, 5)",
                    **values,
                )
            )

    return fill


def chunk_counts(model):
    return dict(model.database.read(lambda t: t.rows("SELECT vault_id, count(*) FROM chunk GROUP BY vault_id")))


def test_chunks_of_deleted_vaults_are_removed(model, fill, snapshot):
    """Vault 1 exists; vaults 7 and 9 do not."""
    fill(1, 3)
    before = snapshot()
    fill(7, 4)
    fill(9, 2)
    background_tasks.delete_chunks_of_deleted_vaults(model.context)
    assert chunk_counts(model) == {1: 3}
    assert snapshot() == before


def test_a_round_deletes_a_bounded_part_of_a_vault(model, fill, monkeypatch):
    monkeypatch.setattr(background_tasks, "CHUNKS_PER_BATCH", 2)
    monkeypatch.setattr(background_tasks, "BATCHES_MAX", 2)
    fill(7, 9)
    left = []
    while chunk_counts(model):
        background_tasks.delete_chunks_of_deleted_vaults(model.context)
        left.append(chunk_counts(model).get(7, 0))
    assert left == [5, 1, 0]


def remember(model, token):
    model.database.write(
        lambda t: idempotency.insert(t, "StartBackupJob", token, request_digest=b"", answer="", now_ms=model.clock())
    )


def known(model):
    return [row[0] for row in model.database.read(lambda t: t.rows("SELECT token FROM idempotency ORDER BY token"))]


def test_a_token_is_forgotten_once_it_is_no_longer_honoured(model, snapshot):
    remember(model, "old")
    model.clock.advance(1)
    remember(model, "young")
    model.clock.advance(DAY_MS - 1)
    before = snapshot()
    background_tasks.forget_expired_tokens(model.context)
    assert snapshot() == before
    model.clock.advance(1)
    background_tasks.forget_expired_tokens(model.context)
    assert known(model) == ["young"]
    assert snapshot("idempotency") == {name: left for name, left in before.items() if name != "idempotency"}


def test_many_tokens_take_several_rounds(model, monkeypatch):
    monkeypatch.setattr(background_tasks, "TOKENS_PER_ROUND", 2)
    for number in range(5):
        remember(model, f"{number}")
    model.clock.advance(2 * DAY_MS)
    left = []
    for _ in range(3):
        background_tasks.forget_expired_tokens(model.context)
        left.append(len(known(model)))
    assert left == [3, 1, 0]
