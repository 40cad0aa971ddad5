"""PutChunk on a store whose packs do not grow: writes in one message, and their repetition step by step."""

from __future__ import annotations

import threading

import pytest

from cryostore.model.errors import DataAlreadyExistsException, IllegalArgumentException
from support.stores.shared_store import ON_PATHS, ON_SERVICES, missing_services, prepared
from support.stores.shared_store import SharedStore as Store

A, B = b"a" * 4000, b"b" * 4000


@pytest.fixture(params=[ON_PATHS, ON_SERVICES])
def store(request, tmp_path):
    if request.param == ON_SERVICES and missing_services():
        pytest.skip(missing_services())
    with prepared(tmp_path / "store", request.param) as place:
        store = Store(place)
        store.service.context.store.packs_grow = False
        yield store
        store.service.close()


def at_once(store):
    """Make all concurrent writers read the catalog before the first of them stores its chunk."""
    context = store.service.context
    met = threading.Barrier(2)
    honest = context.store.put

    def put(*arguments):
        met.wait(10)
        return honest(*arguments)

    context.store.put = put


def together(*works):
    found = []

    def run(work):
        try:
            found.append(work())
        except Exception as error:  # noqa: BLE001 - the test checks it
            found.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_concurrent_puts_of_the_same_bytes_reach_both_uploads(store):
    api = store.api()
    job = api.start_job()
    uploads = [api.start(job, name) for name in ("one", "two")]
    at_once(store)
    answers = together(*(lambda upload=upload: api.chunk(job, upload, 0, A) for upload in uploads))
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    for upload in uploads:
        api.complete(job, upload, [A])
    api.commit(job)


def test_of_two_concurrent_chunks_for_one_index_one_is_refused(store):
    api = store.api()
    job = api.start_job()
    upload = api.start(job, "one")
    at_once(store)
    answers = together(lambda: api.chunk(job, upload, 0, A), lambda: api.chunk(job, upload, 0, B))
    assert sorted(type(answer) is DataAlreadyExistsException for answer in answers) == [False, True]
    assert not [answer for answer in answers if isinstance(answer, IllegalArgumentException)]


def test_a_chunk_of_a_job_that_ended_meanwhile_is_refused(store):
    api = store.api()
    job = api.start_job()
    upload = api.start(job, "one")
    honest = store.service.context.store.put

    def put(*arguments):
        api.stop(job)
        return honest(*arguments)

    store.service.context.store.put = put
    api.refuses(IllegalArgumentException, api.chunk_operation(job, upload, 0, A), match="takes no more writes")
