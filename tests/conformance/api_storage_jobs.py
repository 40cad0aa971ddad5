"""Conformance tests of ListObjects, ListChunks, GetChunk and GetObjectMetadata (Backup Storage B.8 to B.11)."""

from __future__ import annotations

import base64

import pytest

from cryostore.model.chunks import GetChunk, ListChunks
from cryostore.model.errors import IllegalArgumentException, ResourceNotFoundException
from cryostore.model.objects import GetObjectMetadata, ListObjects
from support.requests.api import BASE_SUFFIX, base64_of

NAMES = sorted(
    ["a", "a/1", "a/2", "a/10", "a0", "b", "b/\u00ff", "b/\ud7ff", "b/\ue000", "b/\U0010ffff", "é", "z"],
    key=str.encode,
)
TIMES = [1_000_000_000.0, 1_000_000_000.5, 4_000_000_000.0]


def altered(token):
    """Return texts that resemble the token."""
    texts = [token[:-1], token + "A", token + "=", token.swapcase(), token[:5] + token[6:], token[1:], "A" + token]
    texts += [
        token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :] for place in range(0, len(token), 7)
    ]
    texts += ["x", "é", "%00", "A" * 1024, base64.urlsafe_b64encode(b"0" * 24).decode()]
    return [text for text in texts if text != token]


class ListObjectsTests:
    """Subclass, name it Test..., and give `api`: a support.requests.api.Api."""

    @pytest.fixture(params=["running job", "restore job", "base"])
    def view(self, api, request):
        """A storage job with the objects NAMES: inherited and written ones, one inherited and deleted, one replaced."""
        half = dict.fromkeys(NAMES[::2], b"old") | {"deleted": b"1"}
        api.backup(half)
        job = api.start_job()
        api.delete(job, "deleted")
        for name in [*NAMES[1::2], NAMES[0]]:
            api.put(job, name, name.encode())
        if request.param == "running job":
            return job
        arn = api.commit(job)
        if request.param == "restore job":
            return api.restore(arn)
        job = api.running_job()
        api.put(job, "later", b"")
        return job + BASE_SUFFIX

    def test_names_come_in_byte_order_of_their_utf8(self, api, view):
        """B.10."""
        page = api.call(ListObjects(storage_job_id=view))
        assert [one.name for one in page.object_list] == NAMES
        assert page.next_token is None

    @pytest.mark.parametrize("size", [1, 2, 5, 11, 12, 13])
    def test_pages_of_any_size_give_the_whole_list(self, api, view, size):
        found, token = [], None
        while True:
            page = api.call(ListObjects(storage_job_id=view, max_results=size, next_token=token))
            assert len(page.object_list) <= size
            found += [one.name for one in page.object_list]
            token = page.next_token
            if token is None:
                break
            assert len(page.object_list) == size
        assert found == NAMES

    @pytest.mark.parametrize("start", ["", "a", "a/", "a/1", "a/10", "a/11", "b/\ud7ff", "zz", "\U0010ffff"])
    def test_the_starting_name_is_inclusive(self, api, view, start):
        page = api.call(ListObjects(storage_job_id=view, starting_object_name=start))
        assert [one.name for one in page.object_list] == [name for name in NAMES if name.encode() >= start.encode()]

    @pytest.mark.parametrize("prefix", ["", "a", "a/", "a/1", "b/", "b/\ud7ff", "é", "\U0010ffff", "nothing"])
    @pytest.mark.parametrize("size", [1, 100])
    def test_the_prefix_filters(self, api, view, prefix, size):
        listed = api.listed(ListObjects(storage_job_id=view, starting_object_prefix=prefix, max_results=size))
        assert [one.name for one in listed] == [name for name in NAMES if name.startswith(prefix)]

    def test_prefix_and_starting_name_together(self, api, view):
        list_ = ListObjects(storage_job_id=view, starting_object_name="a/10", starting_object_prefix="a", max_results=2)
        expected = [name for name in NAMES if name.startswith("a") and name.encode() >= b"a/10"]
        assert [one.name for one in api.listed(list_)] == expected

    def test_start_and_prefix_are_ignored_with_a_token(self, api, view):
        """A.2: the token continues its own list."""
        first = api.call(ListObjects(storage_job_id=view, starting_object_prefix="a/", max_results=1))
        rest = api.call(
            ListObjects(
                storage_job_id=view,
                starting_object_prefix="b",
                starting_object_name="z",
                next_token=first.next_token,
                max_results=100,
            )
        )
        assert [one.name for one in first.object_list + rest.object_list] == ["a/1", "a/10", "a/2"]

    @pytest.mark.parametrize("size", [0, -1, 101, 2**63])
    def test_other_page_sizes_are_refused(self, api, view, size):
        api.refuses(IllegalArgumentException, ListObjects(storage_job_id=view, max_results=size))
        token = api.call(ListObjects(storage_job_id=view)).object_list[0].object_token
        api.refuses(IllegalArgumentException, ListChunks(storage_job_id=view, object_token=token, max_results=size))

    def test_forged_and_altered_tokens_are_refused(self, api, view):
        """B.9."""
        token = api.call(ListObjects(storage_job_id=view, max_results=1)).next_token
        for wrong in altered(token):
            api.refuses(IllegalArgumentException, ListObjects(storage_job_id=view, next_token=wrong))

    def test_a_token_is_valid_for_its_filters_only(self, api, view):
        list_ = ListObjects(storage_job_id=view, max_results=1, created_after=TIMES[0])
        token = api.call(list_).next_token
        for filters in ({}, {"created_after": TIMES[1]}, {"created_after": TIMES[0], "created_before": TIMES[2]}):
            api.refuses(IllegalArgumentException, ListObjects(storage_job_id=view, next_token=token, **filters))
        assert api.call(ListObjects(storage_job_id=view, next_token=token, created_after=TIMES[0])).object_list

    def test_names_beyond_the_limit_are_refused(self, api, view):
        for name in ("a" * 1025, "é" * 513):
            api.refuses(IllegalArgumentException, ListObjects(storage_job_id=view, starting_object_name=name))
            api.refuses(IllegalArgumentException, ListObjects(storage_job_id=view, starting_object_prefix=name))

    def test_long_names_make_tokens_that_work(self, api):
        job = api.start_job()
        names = ["é" * 511 + letter for letter in "abc"]
        for name in names:
            api.put(job, name, b"")
        list_ = ListObjects(storage_job_id=job, starting_object_prefix="é" * 511, max_results=1)
        assert [one.name for one in api.listed(list_)] == names

    def test_the_default_page_has_100_objects(self, api):
        job = api.start_job()
        for number in range(101):
            api.put(job, f"{number:03}")
        page = api.call(ListObjects(storage_job_id=job))
        assert len(page.object_list) == 100
        rest = api.call(ListObjects(storage_job_id=job, next_token=page.next_token))
        assert ([one.name for one in rest.object_list], rest.next_token) == (["100"], None)
        everything = api.call(ListObjects(storage_job_id=job, max_results=100))
        assert len(everything.object_list) == 100

    def test_the_fields_of_an_object(self, api):
        job = api.start_job()
        api.put(job, "name", b"data", metadata_string="text")
        one = api.found(job, "name")
        assert (one.chunks_count, one.metadata_string, one.object_checksum_algorithm) == (1, "text", "SUMMARY")
        assert one.object_token

    def test_an_empty_view(self, api):
        page = api.call(ListObjects(storage_job_id=api.start_job()))
        assert (page.object_list, page.next_token) == ([], None)


class TokenTests:
    """B.9: tokens are opaque, cannot be forged, and are valid for their job only, until it ends."""

    def tokens(self, api, job):
        page = api.call(ListObjects(storage_job_id=job, max_results=1))
        (one,) = page.object_list
        chunks = api.call(ListChunks(storage_job_id=job, object_token=one.object_token, max_results=1))
        return page.next_token, one.object_token, chunks.next_token, chunks.chunk_list[0].chunk_token

    def uses(self, job, tokens):
        """Return every request that uses a token."""
        page, object_token, chunk_page, chunk = tokens
        return [
            ListObjects(storage_job_id=job, next_token=page),
            ListChunks(storage_job_id=job, object_token=object_token),
            ListChunks(storage_job_id=job, object_token=object_token, next_token=chunk_page),
            GetObjectMetadata(storage_job_id=job, object_token=object_token),
            GetChunk(storage_job_id=job, chunk_token=chunk),
        ]

    @pytest.fixture
    def point(self, api):
        job = api.start_job()
        api.upload(job, "one", [b"1", b"2", b"3"])
        api.put(job, "two", b"4")
        return api.commit(job)

    def test_tokens_of_another_job_are_refused(self, api, point):
        first, second = api.restore(point), api.restore(point)
        for use in self.uses(second, self.tokens(api, first)):
            api.refuses(IllegalArgumentException, use)
        running = api.running_job()
        for use in self.uses(running, self.tokens(api, first)):
            api.refuses(IllegalArgumentException, use)
        for use in self.uses(first, self.tokens(api, running + BASE_SUFFIX)):
            api.refuses(IllegalArgumentException, use)

    def test_a_token_of_another_kind_is_refused(self, api, point):
        job = api.restore(point)
        page, object_token, chunk_page, chunk = self.tokens(api, job)
        for tokens in ((chunk_page, chunk, page, object_token), (object_token, page, chunk, chunk_page)):
            for use in self.uses(job, tokens):
                api.refuses(IllegalArgumentException, use)

    def test_a_page_token_of_another_objects_chunks_is_refused(self, api, point):
        job = api.restore(point)
        *_, chunk_page, _ = self.tokens(api, job)
        other = api.found(job, "two").object_token
        api.refuses(IllegalArgumentException, ListChunks(storage_job_id=job, object_token=other, next_token=chunk_page))

    def test_altered_tokens_are_refused(self, api, point):
        job = api.restore(point)
        _, object_token, chunk_page, chunk = self.tokens(api, job)
        for wrong in altered(object_token):
            api.refuses(IllegalArgumentException, ListChunks(storage_job_id=job, object_token=wrong))
            api.refuses(IllegalArgumentException, GetObjectMetadata(storage_job_id=job, object_token=wrong))
        for wrong in altered(chunk):
            api.refuses(IllegalArgumentException, GetChunk(storage_job_id=job, chunk_token=wrong))
        for wrong in altered(chunk_page):
            list_ = ListChunks(storage_job_id=job, object_token=object_token, next_token=wrong)
            api.refuses(IllegalArgumentException, list_)

    @pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "ABORTED"])
    def test_tokens_end_with_their_restore_job(self, api, point, status):
        job = api.restore(point)
        tokens = self.tokens(api, job)
        api.end_restore(job, status)
        for use in self.uses(job, tokens):
            api.refuses(ResourceNotFoundException, use)

    @pytest.mark.parametrize("end", ["commit", "stop", "fail"])
    def test_tokens_end_with_their_backup_job(self, api, point, end):
        job = api.running_job()
        tokens, base_tokens = self.tokens(api, job), self.tokens(api, job + BASE_SUFFIX)
        for use in (*self.uses(job, tokens), *self.uses(job + BASE_SUFFIX, base_tokens)):
            api.call(use)
        {"commit": api.commit, "stop": api.stop, "fail": lambda job: api.commit(job, outcome="FAILED")}[end](job)
        for use in (*self.uses(job, tokens), *self.uses(job + BASE_SUFFIX, base_tokens)):
            api.refuses(ResourceNotFoundException, use)

    def test_an_object_that_is_no_longer_in_the_view_is_not_found(self, api, point):
        """A token of a running job ends when its object is deleted or replaced."""
        job = api.running_job()
        for change in (lambda: api.put(job, "one", b"new"), lambda: api.delete(job, "one")):
            token = api.found(job, "one").object_token
            change()
            api.refuses(ResourceNotFoundException, ListChunks(storage_job_id=job, object_token=token))
            api.refuses(ResourceNotFoundException, GetObjectMetadata(storage_job_id=job, object_token=token))

    def test_tokens_survive_a_restart(self, api, point):
        job = api.restore(point)
        tokens = self.tokens(api, job)
        if api.reopen:
            api.reopen()
        for use in self.uses(job, tokens):
            api.call(use)


class StorageJobTests:
    """B.8: a storage job is a restore job or a backup job in progress."""

    @pytest.mark.parametrize("job", ["x", "00000000-0000-4000-8000-FFFFFFFFFFFF", BASE_SUFFIX, "é", "x" * 1024])
    def test_an_unknown_job(self, api, job):
        for use in (
            ListObjects(storage_job_id=job),
            ListChunks(storage_job_id=job, object_token="x"),
            GetObjectMetadata(storage_job_id=job, object_token="x"),
            GetChunk(storage_job_id=job, chunk_token="x"),
        ):
            api.refuses(ResourceNotFoundException, use)

    def test_reading_a_created_job_starts_it_on_its_base(self, api):
        api.backup({"name": b"data"})
        job = api.start_job()
        assert api.read(job) == {"name": b"data"}
        assert api.job(job).state == "RUNNING"

    def test_a_view_changes_with_its_job_and_its_base_does_not(self, api):
        api.backup({"name": b"old", "gone": b"1"})
        job = api.running_job()
        api.put(job, "name", b"new")
        api.delete(job, "gone")
        assert api.read(job) == {"name": b"new"}
        assert api.read(job + BASE_SUFFIX) == {"name": b"old", "gone": b"1"}

    def test_a_job_without_base_has_no_base_to_read(self, api):
        job = api.running_job()
        api.refuses(ResourceNotFoundException, ListObjects(storage_job_id=job + BASE_SUFFIX))

    def test_a_chunk_is_verified_and_has_its_length_and_checksum(self, api):
        job = api.restore(api.backup({"name": b"data"}))
        (chunk,) = api.chunks(job, "name")
        got = api.call(GetChunk(storage_job_id=job, chunk_token=chunk.chunk_token))
        assert (bytes(got.data.data), got.length) == (b"data", 4)
        assert (got.checksum, got.checksum_algorithm) == (base64_of(b"data"), "SHA256")

    def test_pages_of_chunks(self, api):
        contents = [b"%d" % number for number in range(7)]
        job = api.start_job()
        api.upload(job, "name", contents)
        token = api.found(job, "name").object_token
        for size in (1, 2, 6, 7, 8):
            listed = api.listed(ListChunks(storage_job_id=job, object_token=token, max_results=size))
            assert [chunk.index for chunk in listed] == list(range(7))

    def test_the_default_page_has_100_chunks(self, api):
        job = api.start_job()
        api.upload(job, "name", [b"x"] * 101)
        token = api.found(job, "name").object_token
        page = api.call(ListChunks(storage_job_id=job, object_token=token))
        assert len(page.chunk_list) == 100
        rest = api.call(ListChunks(storage_job_id=job, object_token=token, next_token=page.next_token))
        assert ([chunk.index for chunk in rest.chunk_list], rest.next_token) == ([100], None)


class CreationTimeTests:
    """B.10: created-after is inclusive, created-before exclusive. Needs a clock set by the test."""

    def test_filters_by_creation(self, api):
        job = api.start_job()
        moments = {}
        for name in ("c", "a", "b", "d"):
            api.clock.advance(1500)
            moments[name] = api.clock.now_ms / 1000
            api.put(job, name, b"")
        restore = api.restore(api.commit(job))

        def listed(**filters):
            return [one.name for one in api.listed(ListObjects(storage_job_id=restore, max_results=1, **filters))]

        assert listed(created_after=moments["a"]) == ["a", "b", "d"]
        assert listed(created_after=moments["a"] + 0.001) == ["b", "d"]
        assert listed(created_before=moments["b"]) == ["a", "c"]
        assert listed(created_before=moments["b"] + 0.001) == ["a", "b", "c"]
        assert listed(created_after=moments["a"], created_before=moments["d"]) == ["a", "b"]
        assert listed(created_after=moments["d"], created_before=moments["c"]) == []
