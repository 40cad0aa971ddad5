"""The Bloom filter respects its memory limit; a collection makes several passes if one set is too small."""

from __future__ import annotations

import logging
import random

import pytest

from cryostore.core.limits import KIB, MIB
from cryostore.maintenance.garbage_collection import mark as digest_set
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.garbage_collection.mark import BYTES_PER_CHUNK_MIN, DigestSet, shares
from cryostore.maintenance.store_statistics import store_statistics
from cryostore.service import Settings
from support.requests.api import new_resource
from support.stores.in_process import opened
from support.stores.integrity import problems

COVERS = ("maintenance/garbage_collection/mark.py",)

CHUNKS = 20_000


def digests(count, seed):
    """Return `count` digests, always the same for a seed."""
    chance = random.Random(seed)
    return [chance.randbytes(32) for _ in range(count)]


@pytest.mark.parametrize(
    ("expected", "passes"), [(0, 1), (128 * MIB, 1), (128 * MIB + 1, 2), (10**9, 8), (10**12, 256)]
)
def test_passes_follow_from_the_number_of_chunks_and_the_memory(expected, passes):
    found = shares(expected, 128 * MIB)
    assert len(found) == passes
    assert [byte for share in found for byte in share] == list(range(256))


@pytest.mark.parametrize("memory", [KIB, 5000, 7 * KIB, 64 * KIB])
def test_a_filter_respects_its_memory_limit_and_has_few_false_positives(memory, monkeypatch):
    monkeypatch.setattr(digest_set, "BYTES_MIN", KIB)
    present, absent = digests(CHUNKS, 1), digests(CHUNKS, 2)
    false = 0
    for share in shares(CHUNKS, memory):
        marked = DigestSet(CHUNKS * len(share) // 256, 7, bytes_max=memory, share=share)
        marked.add(1, b"".join(present))
        assert len(marked._bits) <= memory
        assert all(marked.holds(1, digest) for digest in present if digest[0] in share)
        claims = [marked.holds(1, digest) for digest in absent if digest[0] in share]
        false += sum(claims)
        assert abs(marked.false_share() - sum(claims) / len(claims)) < 0.05
    assert false < CHUNKS * 0.04 / BYTES_PER_CHUNK_MIN


def test_a_filter_that_is_too_small_reports_its_rate_of_false_positives():
    marked = DigestSet(CHUNKS, 7, bytes_max=4 * KIB)
    marked.add(1, b"".join(digests(CHUNKS, 1)))
    lies = sum(marked.holds(1, digest) for digest in digests(CHUNKS, 2)) / CHUNKS
    assert 0.5 < lies < 1
    assert marked.false_share() == pytest.approx(lies, abs=0.02)


def store_with_garbage(store):
    """Make two vaults and keep one point in each. Returns the points and their contents."""
    points = {}
    for vault in range(2):
        api = store.api()
        api.new_vault()
        for kept in (True, False):
            contents = {
                f"{vault} {kept} {number}": random.Random(f"{vault} {kept} {number}").randbytes(700)
                for number in range(150)
            }
            job = api.start_job(resource=new_resource())
            for name, data in contents.items():
                api.put(job, name, data)
            point = api.commit(job)
            if kept:
                points[point] = (api, contents)
            else:
                api.delete_point(point)
    store.maintain()
    return points


@pytest.mark.parametrize(("memory", "passes"), [(128 * MIB, 1), (64 * KIB, 2), (KIB, 98)])
def test_a_collection_in_several_passes_removes_the_same_garbage(tmp_path, memory, passes):
    with opened(tmp_path / "data", settings=Settings(collection_memory_bytes=memory)) as store:
        points = store_with_garbage(store)
        removed = 0
        for _ in range(3):
            outcome = collect_all(store.service.context, quarantine_ms=0)
            assert (outcome.passes, outcome.chunks + removed) == (passes, 600)
            removed += outcome.removed
        assert removed == 300
        for point, (api, contents) in points.items():
            assert api.restored(point) == contents
        assert problems(store.data_dir) == []


def test_the_statistics_describe_the_last_mark_phase(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with opened(tmp_path / "data", settings=Settings(collection_memory_bytes=64 * KIB)) as store:
        store_with_garbage(store)
        assert store_statistics(store.service.context).collection_passes == 0
        outcome = collect_all(store.service.context)
        found = store_statistics(store.service.context)
        assert (found.collection_passes, found.collection_false_share) == (
            2,
            pytest.approx(outcome.false_share, abs=1e-6),
        )
        assert "2 times" in caplog.text


def test_a_run_with_too_many_false_positives_logs_a_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(DigestSet, "false_share", lambda _: 0.25)
    with opened(tmp_path / "data") as store:
        store_with_garbage(store)
        collect_all(store.service.context)
        assert "kept 25 % of the garbage" in caplog.text
        assert store_statistics(store.service.context).collection_false_share == 0.25
