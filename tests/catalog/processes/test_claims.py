"""Claims: one holder at a time, growing fencing tokens, and former holders that are shut out."""

from __future__ import annotations

from contextlib import closing

import pytest

from conformance.database import together
from cryostore.catalog import open_catalog
from cryostore.catalog.postgres.engine import PostgresDatabase
from cryostore.catalog.processes import claims
from cryostore.catalog.processes.claims import ClaimHeldError, ClaimLostError, ClaimRow

LEASE_MS = 1000
NOW_MS = 1_700_000_000_000


def claim(catalog, holder, now_ms=NOW_MS, work="work"):
    """Claim it."""
    return catalog.write(lambda t: claims.claim(t, work, holder, now_ms=now_ms, lease_ms=LEASE_MS))


def find(catalog, work="work"):
    return catalog.read(lambda t: claims.find(t, work))


def release(catalog, fence, **more):
    values = {"now_ms": NOW_MS + 5, "finished_ms": None, "place": ""} | more
    return catalog.write(lambda t: claims.release(t, "work", fence, **values))


def renew(catalog, fence, until_ms, doing="", place=""):
    catalog.write(lambda t: claims.renew(t, "work", fence, until_ms=until_ms, doing=doing, place=place))


def hold(catalog, fence):
    catalog.write(lambda t: claims.require_held(t, "work", fence))


def is_lost(catalog, fence):
    """Return whether the holder with this number is shut out, and its attempts change nothing."""
    before = find(catalog)
    for attempt in (hold, lambda *arguments: renew(*arguments, NOW_MS * 2)):
        with pytest.raises(ClaimLostError):
            attempt(catalog, fence)
    return not release(catalog, fence, finished_ms=NOW_MS) and find(catalog) == before


def test_work_that_was_never_claimed(catalog):
    assert find(catalog, "nothing yet") == ClaimRow("nothing yet")
    assert find(catalog, "nothing yet").is_free(now_ms=NOW_MS, lease_ms=LEASE_MS)
    assert is_lost(catalog, 0)
    assert catalog.read(claims.held) == []


def test_a_claim_names_its_holder_begin_and_end(catalog):
    row = claim(catalog, "node/1")
    assert row == ClaimRow("work", "node/1", 1, NOW_MS + LEASE_MS, NOW_MS, 0, "", "")
    assert find(catalog) == row
    assert catalog.read(claims.held) == [row]
    renew(catalog, 1, NOW_MS + 1500, "step 5 of 9", "here")
    assert find(catalog) == ClaimRow("work", "node/1", 1, NOW_MS + 1500, NOW_MS, 0, "step 5 of 9", "here")
    with pytest.raises(ClaimHeldError) as held:
        claim(catalog, "node/2", NOW_MS + 1500)
    assert held.value.message == "work is done by node/1 since 2023-11-14T22:13:20.000Z (step 5 of 9)"
    assert held.value.hint.endswith("the claim lapses at 2023-11-14T22:13:21.500Z")
    assert find(catalog).fencing_token == 1


def test_each_kind_of_work_is_claimed_separately(catalog):
    rows = [claim(catalog, f"node/{work}", work=work) for work in "ba"]
    assert catalog.read(claims.held) == sorted(rows)


@pytest.mark.parametrize(
    ("after_ms", "free"),
    [(0, False), (LEASE_MS, False), (LEASE_MS + 1, True), (-LEASE_MS, False), (-LEASE_MS - 1, True), (-(10**12), True)],
)
def test_a_lease_expires_and_one_too_far_ahead_does_not_count(catalog, after_ms, free):
    """A lease that begins slightly in the future counts, because two readings of the clock may differ."""
    first = claim(catalog, "first")
    assert first.is_free(now_ms=NOW_MS + after_ms, lease_ms=LEASE_MS) == free
    if free:
        assert claim(catalog, "second", NOW_MS + after_ms).fencing_token == 2
        assert is_lost(catalog, 1)
        hold(catalog, 2)
    else:
        with pytest.raises(ClaimHeldError):
            claim(catalog, "second", NOW_MS + after_ms)
        hold(catalog, 1)


def test_an_expired_lease_that_was_not_taken_over_can_be_renewed(catalog):
    claim(catalog, "first")
    renew(catalog, 1, NOW_MS + 10 * LEASE_MS)
    hold(catalog, 1)
    assert release(catalog, 1)


def test_a_released_claim_is_free_and_its_number_is_never_reused(catalog):
    for count in range(1, 4):
        assert claim(catalog, "node").fencing_token == count
        assert release(catalog, count, finished_ms=NOW_MS + count if count != 2 else None, place=f"place {count}")
        row = find(catalog)
        assert (row.holder, row.until_ms, row.doing, row.place) == (None, NOW_MS + 5, "", f"place {count}")
        assert row.finished_ms == NOW_MS + (1 if count == 2 else count), "unfinished work leaves it unchanged"
        assert is_lost(catalog, count)
    assert claim(catalog, "node").place == "place 3"


def test_a_transaction_of_a_fenced_holder_has_no_effect(catalog):
    claim(catalog, "first")
    claim(catalog, "second", NOW_MS + 2 * LEASE_MS)

    def work(transaction):
        transaction.run("UPDATE vault SET tags = 'changed'")
        claims.require_held(transaction, "work", 1)

    with pytest.raises(ClaimLostError, match="^this process stood still for too long: work is done by second since"):
        catalog.write(work)
    assert catalog.read(lambda t: t.rows("SELECT tags FROM vault")) == [("{}",), ("{}",)]


@pytest.fixture(params=["sqlite", "postgres"])
def open_another(request, tmp_path):
    """Return a function that opens the same catalog as another process would."""
    if request.param == "sqlite":
        return lambda: open_catalog(tmp_path / "catalog.sqlite")
    url = request.getfixturevalue("postgres_url")
    return lambda: PostgresDatabase(url)


def test_of_many_simultaneous_claims_one_succeeds(open_another):
    """Each process opens the catalog itself, and all claim until the work was done often enough. No number repeats."""
    fences = []
    with closing(open_another()) as first, closing(open_another()) as second, closing(open_another()) as third:
        catalogs = (first, second, third)

        def run(number):
            catalog = catalogs[number % 3]
            while len(fences) < 30:
                try:
                    fence = claim(catalog, f"node/{number}").fencing_token
                except ClaimHeldError:
                    continue
                hold(catalog, fence)
                fences.append(fence)
                assert release(catalog, fence)

        together(6, run)
    assert fences == list(range(1, len(fences) + 1))
