"""NotifyObjectComplete of the service in process, and requests that arrive while it gathers an upload's chunks."""

from __future__ import annotations

from contextlib import suppress

import pytest

from conformance import api_chunks
from cryostore.model.chunks import LinkChunks, LinkedChunk
from cryostore.model.errors import IllegalArgumentException
from cryostore.service.operations.objects import write as upload_module
from support.requests.api import hex_of
from support.stores.integrity import problems

COVERS = ("service/operations/payloads.py", "service/operations/uploads.py")


class TestCompletion(api_chunks.CompletionTests):
    pass


class TestMetadata(api_chunks.MetadataTests):
    pass


@pytest.fixture
def interrupt(monkeypatch):
    """Runs an action once, before the given page of an upload's chunks is read."""

    def at(page, action):
        read_page, pages = upload_module._page, []

        def interrupted(*arguments):
            pages.append(arguments)
            if len(pages) == page:
                action()
            return read_page(*arguments)

        monkeypatch.setattr(upload_module, "_page", interrupted)

    return at


def start_long(api, count, *, skip=()):
    """A job, and an upload with `count` chunks of one byte, except for the indexes left out."""
    job = api.start_job()
    api.put(job, "x", b"x")
    upload = api.start(job, "long")
    link(api, job, upload, [index for index in range(count) if index not in skip])
    return job, upload


def link(api, job, upload, indexes):
    for start in range(0, len(indexes), 1000):
        chunks = [
            LinkedChunk(index=index, length=1, checksum=hex_of(b"x"), checksum_algorithm="SHA256")
            for index in indexes[start : start + 1000]
        ]
        assert api.call(LinkChunks(backup_job_id=job, upload_id=upload, chunks=chunks)).missing == []


@pytest.mark.parametrize("page", [1, 2])
@pytest.mark.parametrize(("count", "late"), [(1001, 1000), (1001, 0), (1000, 500), (2500, 1200), (2500, 2499)])
def test_a_late_chunk_is_in_the_object_or_the_upload_stays_open(api, interrupt, page, count, late):
    """With the SUMMARY of all chunks the object has all of them, in whatever order the two requests run."""
    job, upload = start_long(api, count, skip=[late])
    interrupt(page, lambda: link(api, job, upload, [late]))
    with suppress(IllegalArgumentException):
        api.complete(job, upload, [b"x"] * count)
    api.complete(job, upload, [b"x"] * count)
    restore = api.restore(api.commit(job))
    assert [chunk.index for chunk in api.chunks(restore, "long")] == list(range(count))
    assert problems(api.data_dir) == []


@pytest.mark.parametrize("page", [1, 2, 3])
@pytest.mark.parametrize("count", [1000, 2500])
def test_a_repeated_request_may_overtake_the_first(api, interrupt, page, count):
    """A client repeats the request while the first one runs: both get the same answer, and the object is whole."""
    job, upload = start_long(api, count)
    interrupt(page, lambda: api.complete(job, upload, [b"x"] * count))
    assert api.complete(job, upload, [b"x"] * count).object_checksum
    assert [chunk.index for chunk in api.chunks(job, "long")] == list(range(count))
    assert problems(api.data_dir) == []


def test_a_slower_request_with_fewer_chunks_does_not_touch_the_object(api, interrupt):
    """It gathered the chunks before the last one arrived. The object exists by now, with all of them."""
    job, upload = start_long(api, 2500, skip=[1200])

    def overtake():
        link(api, job, upload, [1200])
        api.complete(job, upload, [b"x"] * 2500)

    interrupt(3, overtake)
    api.refuses(IllegalArgumentException, api.complete_operation(job, upload, [b"x"] * 2499))
    assert [chunk.index for chunk in api.chunks(job, "long")] == list(range(2500))
    assert problems(api.data_dir) == []


@pytest.mark.parametrize("page", [1, 2, 3])
def test_a_job_stopped_during_completion_leaves_nothing(api, interrupt, page):
    job, upload = start_long(api, 2500)
    interrupt(page, lambda: api.stop(job))
    api.refuses(IllegalArgumentException, api.complete_operation(job, upload, [b"x"] * 2500), match="ABORTED")
    api.maintain()
    assert problems(api.data_dir) == []


def test_a_completion_that_commits_may_be_repeated_while_it_runs(api, interrupt):
    job = api.start_job(backup_options={"CommitOnObject": "_commit"})
    api.put(job, "name", b"1")
    upload = api.start(job, "_commit")
    interrupt(1, lambda: api.complete(job, upload, [], blob=b"{}"))
    assert api.complete(job, upload, [], blob=b"{}").object_checksum == hex_of(b"")
    assert api.job(job).state == "COMPLETED"
