"""Checks of a blob store."""

from __future__ import annotations

from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.core.diagnosis import ERROR, OK, WARNING
from cryostore.core.errors import StorageUnavailableError
from cryostore.maintenance.diagnosis.blobs import check_blobs


class Versioned(MemoryBlobs):
    """Blobs of a service that keeps old versions of the markers, or refuses to tell."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def has_versions(self, _key):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Unreachable(MemoryBlobs):
    """Blobs that cannot be read."""

    def get(self, *_, **__):
        raise StorageUnavailableError("no answer", hint="wait")


def levels(store, **options):
    return {found.about: found.level for found in check_blobs(store, "the place", **options)}


def test_a_place_without_a_store_answers_all_the_same():
    store = MemoryBlobs()
    assert levels(store, trial_name=None) == {"blobs": WARNING}
    assert levels(store, trial_name="unused") == {"blobs": WARNING, "blob service": OK}
    assert not list(store.list()), "the trial leaves nothing behind"


def test_a_place_that_does_not_answer_is_checked_no_further():
    (found,) = check_blobs(Unreachable(), "the place", trial_name="unused")
    assert (found.level, found.found, found.advice) == (ERROR, "no answer", "wait")


def test_a_trial_that_fails():
    class ReadOnly(MemoryBlobs):
        def put(self, *_):
            raise StorageUnavailableError("refused")

    assert levels(ReadOnly(), trial_name="unused")["blob service"] == ERROR


def test_the_versions_of_a_bucket(monkeypatch):
    marker = type("Marker", (), {"store_id": "store", "number": 1})()
    monkeypatch.setattr("cryostore.maintenance.diagnosis.blobs.newest_marker", lambda _: marker)
    for answer, level in ((False, OK), (True, WARNING), (StorageUnavailableError("refused"), ERROR)):
        assert levels(Versioned(answer), trial_name=None) == {"blobs": OK, "bucket": level}
