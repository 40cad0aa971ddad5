"""Lists over all pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.client import pages as pages_module
from cryostore.client.pages import chunks, items, objects, pages
from cryostore.core.errors import CryostoreError
from cryostore.model import OPERATIONS
from cryostore.model.chunks import Chunk, ListChunks, ListChunksOutput
from cryostore.model.jobs import BackupJob, DescribeBackupJob, ListBackupJobs, ListBackupJobsOutput
from cryostore.model.objects import BackupObject, ListObjects, ListObjectsOutput

CHECKSUM = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


class Lister:
    """A Call that returns numbered items in pages; the token is the number of the next page."""

    def __init__(self, sizes, answer):
        self.sizes = sizes
        self.answer = answer
        self.asked = []

    def call(self, operation):
        self.asked.append(operation)
        page = int(operation.next_token or 0)
        first = sum(self.sizes[:page])
        token = str(page + 1) if page + 1 < len(self.sizes) else None
        return self.answer(range(first, first + self.sizes[page]), token)


def jobs_page(numbers, token):
    return ListBackupJobsOutput(backup_jobs=[BackupJob(backup_job_id=str(n)) for n in numbers], next_token=token)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_all_items_are_listed_in_order_even_after_empty_pages(sizes):
    lister = Lister(sizes, jobs_page)
    found = [job.backup_job_id for job in items(lister, ListBackupJobs(by_state="RUNNING", max_results=3))]
    assert found == [str(number) for number in range(sum(sizes))]
    assert len(lister.asked) == len(sizes)
    assert all((asked.by_state, asked.max_results) == ("RUNNING", 3) for asked in lister.asked)


def test_a_page_is_requested_only_when_its_items_are_needed():
    lister = Lister([2, 2, 2], jobs_page)
    next(items(lister, ListBackupJobs()))
    assert len(lister.asked) == 1


def test_a_list_starts_at_a_given_token():
    lister = Lister([2, 2, 2], jobs_page)
    assert [job.backup_job_id for job in items(lister, ListBackupJobs(next_token="2"))] == ["4", "5"]


def test_lists_of_objects_and_chunks():
    def objects_page(numbers, token):
        found = [
            BackupObject(name=str(n), object_checksum=CHECKSUM, object_checksum_algorithm="SUMMARY", object_token="t")
            for n in numbers
        ]
        return ListObjectsOutput(object_list=found, next_token=token)

    def chunks_page(numbers, token):
        found = [
            Chunk(index=n, length=1, checksum=CHECKSUM, checksum_algorithm="SHA256", chunk_token="t") for n in numbers
        ]
        return ListChunksOutput(chunk_list=found, next_token=token)

    lister = Lister([1, 2], objects_page)
    assert [one.name for one in objects(lister, "JOB", prefix="p")] == ["0", "1", "2"]
    assert lister.asked[1] == ListObjects(storage_job_id="JOB", starting_object_prefix="p", next_token="1")
    lister = Lister([1, 2], chunks_page)
    assert [one.index for one in chunks(lister, "JOB", "TOKEN")] == [0, 1, 2]
    assert lister.asked[1] == ListChunks(storage_job_id="JOB", object_token="TOKEN", next_token="1")


def test_a_repeated_token_is_an_error():
    with pytest.raises(CryostoreError, match="same NextToken twice"):
        list(pages(Lister([1], lambda numbers, _: jobs_page(numbers, "0")), ListBackupJobs(next_token="0")))


def test_an_operation_without_pages_is_refused():
    with pytest.raises(TypeError, match="DescribeBackupJob"):
        next(pages(Lister([1], jobs_page), DescribeBackupJob(backup_job_id="JOB")))


def test_every_list_operation_has_one_list_and_a_token_both_ways():
    """`items` relies on this for every declaration."""
    for declaration in OPERATIONS.values():
        attributes = {member.attribute for member in declaration.output_members}
        if "next_token" in attributes:
            assert len(attributes) == 2, declaration.name
            assert "next_token" in {member.attribute for member in declaration.members}, declaration.name


class Endless:
    """A Call that always answers with a new token, after some seconds."""

    def __init__(self, count, seconds=0.0):
        self.count = count
        self.seconds = seconds
        self.now = 0.0
        self.asked = 0

    def call(self, operation):
        self.asked += 1
        self.now += self.seconds
        return jobs_page(range(self.count), str(self.asked))

    def monotonic(self):
        return self.now


@pytest.mark.parametrize(
    ("server", "says", "most"),
    [
        (Endless(1), "there are more than 50 pages", 50),
        (Endless(0), "7 pages in a row are empty", 7),
        (Endless(1, seconds=3600), "7 pages took 25200 seconds", 7),
    ],
)
def test_an_endless_list_is_an_error(server, says, most, monkeypatch):
    monkeypatch.setattr(pages_module, "PAGES_MAX", 50)
    monkeypatch.setattr(pages_module, "EMPTY_PAGES_MAX", 7)
    with pytest.raises(CryostoreError, match=f"the list of ListBackupJobs does not end: {says}"):
        for _ in pages(server, ListBackupJobs(), monotonic=server.monotonic):
            pass
    assert server.asked == most


def test_the_time_between_page_requests_does_not_count():
    lister = Lister([1, 1, 1], jobs_page)
    clock = iter([0, 1, 100_000, 100_001, 200_000, 200_001])
    assert len(list(pages(lister, ListBackupJobs(), monotonic=lambda: next(clock)))) == 3
