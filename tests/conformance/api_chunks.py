"""Conformance tests of PutChunk, LinkChunks and NotifyObjectComplete (Backup Storage B.3 to B.12, control 3.2)."""

from __future__ import annotations

import pytest

from cryostore.core.digest import Payload
from cryostore.model.chunks import LinkChunks, LinkedChunk, ListChunks
from cryostore.model.errors import DataAlreadyExistsException, IllegalArgumentException, ResourceNotFoundException
from support.requests.api import base64_of, footprint, hex_of, summary_base64, summary_hex

INDEX_MAX = 2**63 - 1
MIB = 1024 * 1024
BLOB_MAX = 4 * MIB
TEXTS = ["x", "größe=1 \U0001f9ca", "a" * 256, "é" * 128]
BAD_TEXTS = ["", "a" * 257, "é" * 128 + "a", "a\nb", "\0", "\x85"]


class PutChunkTests:
    """Subclass, name it Test..., and give `api`: a support.requests.api.Api."""

    def test_chunks_are_read_back_in_the_order_of_their_indexes(self, api):
        """B.5: gaps are allowed, up to 2^63-1, and the order of arrival does not matter."""
        contents = {INDEX_MAX: b"last", 7: b"seven", 0: b"first", 2**31: b"middle", 2**62: b""}
        job = api.start_job()
        api.upload(job, "name", contents)
        listed = api.chunks(job, "name")
        assert [chunk.index for chunk in listed] == sorted(contents)
        assert api.read_chunks(job, api.found(job, "name").object_token) == contents
        assert api.found(job, "name").chunks_count == len(contents)
        assert api.restored(api.commit(job)) == {"name": b"firstsevenmiddle" + b"" + b"last"}

    @pytest.mark.parametrize("index", [-1, INDEX_MAX + 1, 2**64])
    def test_other_indexes_are_refused(self, api, index):
        job = api.start_job()
        upload = api.start(job, "name")
        api.refuses_and_keeps(IllegalArgumentException, api.chunk_operation(job, upload, index, b"data"))

    @pytest.mark.parametrize("form", [hex_of, base64_of])
    def test_the_answer_and_reads_keep_the_form_of_the_checksum(self, api, form):
        """B.3."""
        job = api.start_job()
        upload = api.start(job, "name")
        answer = api.chunk(job, upload, 0, b"data", checksum=form(b"data"))
        assert (answer.chunk_checksum, answer.chunk_checksum_algorithm) == (form(b"data"), "SHA256")
        other = base64_of if form is hex_of else hex_of
        assert api.chunk(job, upload, 0, b"data", checksum=other(b"data")).chunk_checksum == other(b"data")
        api.complete(job, upload, [b"data"])
        assert [chunk.checksum for chunk in api.chunks(job, "name")] == [form(b"data")]

    def test_the_same_chunk_again_is_stored_once(self, api):
        """B.5, in any form of its checksum."""
        job = api.start_job()
        upload = api.start(job, "name")
        api.chunk(job, upload, 3, b"data" * 1000)
        before = footprint(api.data_dir)
        for checksum in (hex_of(b"data" * 1000), base64_of(b"data" * 1000)):
            api.chunk(job, upload, 3, b"data" * 1000, checksum=checksum)
        assert footprint(api.data_dir) == before
        api.complete(job, upload, [b"data" * 1000])
        assert api.found(job, "name").chunks_count == 1

    @pytest.mark.parametrize("form", [hex_of, base64_of])
    def test_another_chunk_at_an_index_is_refused_with_the_existing_checksum(self, api, form):
        """B.5."""
        job = api.start_job()
        upload = api.start(job, "name")
        api.chunk(job, upload, 3, b"data", checksum=form(b"data"))
        wrong = api.chunk_operation(job, upload, 3, b"other")
        refusal = api.refuses_and_keeps(DataAlreadyExistsException, wrong)
        assert (refusal.checksum, refusal.checksum_algorithm) == (form(b"data"), "SHA256")
        api.complete(job, upload, [b"data"])
        assert api.read(job) == {"name": b"data"}

    def test_the_same_bytes_at_many_indexes(self, api):
        job = api.start_job()
        api.upload(job, "name", [b"block"] * 30)
        assert api.read(job) == {"name": b"block" * 30}

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"length": 3}, ["3", "4"]),
            ({"length": 5}, ["5", "4"]),
            ({"length": 0}, ["0", "4"]),
            ({"checksum": hex_of(b"other")}, [hex_of(b"other"), hex_of(b"data")]),
            ({"checksum": base64_of(b"other")}, [base64_of(b"other"), base64_of(b"data")]),
            ({"checksum": "0" * 63}, []),
            ({"checksum": ""}, []),
            ({"checksum_algorithm": "MD5"}, []),
            ({"length": -1}, []),
            ({"length": 64 * MIB + 1}, []),
        ],
    )
    def test_a_mismatch_is_refused_with_both_values(self, api, arguments, named):
        """B.12: the upload stays open and accepts the right chunk."""
        job = api.start_job()
        upload = api.start(job, "name")
        wrong = api.chunk_operation(job, upload, 0, b"data", **arguments)
        refusal = api.refuses_and_keeps(IllegalArgumentException, wrong)
        assert all(value in refusal.message for value in named)
        api.chunk(job, upload, 0, b"data")
        api.complete(job, upload, [b"data"])
        assert api.read(job) == {"name": b"data"}

    def test_an_empty_chunk(self, api):
        job = api.start_job()
        api.upload(job, "name", {5: b""})
        assert [(chunk.index, chunk.length) for chunk in api.chunks(job, "name")] == [(5, 0)]
        assert api.read(job) == {"name": b""}

    def test_an_unknown_upload(self, api):
        job = api.running_job()
        for upload in ("x", "00000000-0000-4000-8000-000000000000", "é", "x" * 1024):
            api.refuses_and_keeps(ResourceNotFoundException, api.chunk_operation(job, upload, 0, b"data"))

    def test_a_completed_upload_accepts_no_more_chunks(self, api):
        job = api.start_job()
        upload = api.upload(job, "name", [b"data"])
        for index in (0, 1):
            api.refuses_and_keeps(IllegalArgumentException, api.chunk_operation(job, upload, index, b"data"))


class CompletionTests:
    """NotifyObjectComplete: SUMMARY, metadata, repetition."""

    @pytest.mark.parametrize("form", [summary_hex, summary_base64])
    def test_the_summary_is_verified_and_returned_in_its_form(self, api, form):
        job = api.start_job()
        upload = api.start(job, "name")
        for index, data in enumerate((b"one", b"two")):
            api.chunk(job, upload, index, data)
        answer = api.complete(job, upload, [], object_checksum=form(b"one", b"two"))
        assert (answer.object_checksum, answer.object_checksum_algorithm) == (form(b"one", b"two"), "SUMMARY")
        assert api.found(job, "name").object_checksum == form(b"one", b"two")

    @pytest.mark.parametrize("form", [summary_hex, summary_base64])
    @pytest.mark.parametrize("contents", [(b"two", b"one"), (b"one",), (b"onetwo",), ()])
    def test_another_summary_is_refused_with_both_values(self, api, form, contents):
        """B.4: the chunks are in ascending index order. The upload stays open."""
        job = api.start_job()
        upload = api.start(job, "name")
        api.chunk(job, upload, 9, b"two")
        api.chunk(job, upload, 4, b"one")
        wrong = api.complete_operation(job, upload, [], object_checksum=form(*contents))
        refusal = api.refuses_and_keeps(IllegalArgumentException, wrong)
        assert form(*contents) in refusal.message
        assert form(b"one", b"two") in refusal.message
        assert api.read(job) == {}
        api.complete(job, upload, [b"one", b"two"])
        assert api.read(job) == {"name": b"onetwo"}

    def test_an_upload_without_chunks(self, api):
        job = api.start_job()
        upload = api.start(job, "name")
        assert api.complete(job, upload, []).object_checksum == hex_of(b"")
        assert api.read(job) == {"name": b""}
        assert api.chunks(job, "name") == []

    def test_completing_twice_with_the_same_arguments_gives_the_same_answer(self, api):
        """B.7: another form of the checksum is the same argument. Nothing changes."""
        job = api.start_job()
        upload = api.upload(job, "name", [b"data"], metadata_string="text", blob=b"blob")
        before = footprint(api.data_dir)
        for form in (summary_hex, summary_base64):
            again = api.complete(job, upload, [], object_checksum=form(b"data"), metadata_string="text", blob=b"blob")
            assert again.object_checksum == form(b"data")
        assert footprint(api.data_dir) == before

    @pytest.mark.parametrize(
        "arguments",
        [
            {"metadata_string": "other", "blob": b"blob"},
            {"blob": b"blob"},
            {"metadata_string": "text", "blob": b"other"},
            {"metadata_string": "text"},
            {"metadata_string": "text", "blob": b"blob", "object_checksum": summary_hex(b"other")},
        ],
    )
    def test_completing_again_with_other_arguments_is_refused(self, api, arguments):
        job = api.start_job()
        upload = api.upload(job, "name", [b"data"], metadata_string="text", blob=b"blob")
        api.refuses_and_keeps(IllegalArgumentException, api.complete_operation(job, upload, [b"data"], **arguments))
        assert api.metadata(job, "name").metadata_blob == Payload(b"blob")

    def test_completing_again_does_not_undo_later_changes(self, api):
        job = api.start_job()
        upload = api.upload(job, "name", [b"data"])
        api.delete(job, "name")
        api.complete(job, upload, [b"data"])
        assert api.read(job) == {}

    def test_an_unknown_upload(self, api):
        job = api.running_job()
        api.refuses_and_keeps(ResourceNotFoundException, api.complete_operation(job, "x", []))

    @pytest.mark.parametrize("arguments", [{"object_checksum": "0"}, {"object_checksum_algorithm": "SHA256"}])
    def test_an_invalid_summary_is_refused(self, api, arguments):
        job = api.start_job()
        upload = api.start(job, "name")
        api.refuses_and_keeps(IllegalArgumentException, api.complete_operation(job, upload, [], **arguments))

    def test_an_interrupted_upload_is_resumed(self, api):
        """B.7: acknowledged chunks count over another connection and in another process."""
        job = api.start_job()
        upload = api.start(job, "name")
        api.chunk(job, upload, 0, b"one")
        if api.reopen:
            api.reopen()
        api.chunk(job, upload, 0, b"one")
        api.chunk(job, upload, 1, b"two")
        api.complete(job, upload, [b"one", b"two"])
        assert api.read(job) == {"name": b"onetwo"}

    def test_a_new_version_of_an_inherited_object(self, api):
        base = api.backup({"name": b"old", "kept": b"1"})
        job = api.start_job()
        api.upload(job, "name", [b"new", b"er"])
        assert api.read(job) == {"name": b"newer", "kept": b"1"}
        assert api.restored(api.commit(job, object_count=2)) == {"name": b"newer", "kept": b"1"}
        assert api.restored(base) == {"name": b"old", "kept": b"1"}


class MetadataTests:
    """B.11: a string of 1 to 256 bytes, a blob of up to 4 MiB; B.12: verified."""

    @pytest.mark.parametrize("text", TEXTS)
    def test_a_metadata_string_is_read_back(self, api, text):
        job = api.start_job()
        api.upload(job, "name", [b"data"], metadata_string=text)
        assert api.found(job, "name").metadata_string == text
        assert api.metadata(job, "name").metadata_string == text

    @pytest.mark.parametrize("text", BAD_TEXTS)
    def test_other_texts_are_refused(self, api, text):
        job = api.start_job()
        upload = api.start(job, "name")
        wrong = api.complete_operation(job, upload, [], metadata_string=text)
        api.refuses_and_keeps(IllegalArgumentException, wrong)

    @pytest.mark.parametrize("form", [hex_of, base64_of])
    @pytest.mark.parametrize("blob", [b"x", bytes(range(256)) * 100, b"\0" * BLOB_MAX], ids=["1", "25 KB", "4 MiB"])
    def test_a_blob_is_read_back(self, api, blob, form):
        job = api.start_job()
        upload = api.start(job, "name")
        api.complete(
            job,
            upload,
            [],
            blob=blob,
            metadata_blob_length=len(blob),
            metadata_blob_checksum=form(blob),
            metadata_blob_checksum_algorithm="SHA256",
        )
        restore = api.restore(api.commit(job))
        metadata = api.metadata(restore, "name")
        assert metadata.metadata_blob == Payload(blob)
        assert (metadata.metadata_blob_length, metadata.metadata_blob_checksum) == (len(blob), form(blob))
        assert metadata.metadata_blob_checksum_algorithm == "SHA256"
        assert metadata.metadata_string is None

    def test_a_blob_of_4_mib_and_a_byte_is_refused(self, api):
        job = api.start_job()
        upload = api.start(job, "name")
        blob = b"\0" * (BLOB_MAX + 1)
        api.refuses_and_keeps(IllegalArgumentException, api.complete_operation(job, upload, [], blob=blob))
        wrong = api.complete_operation(job, upload, [], metadata_blob_length=BLOB_MAX + 1)
        api.refuses_and_keeps(IllegalArgumentException, wrong)

    def test_without_metadata_none_is_returned(self, api):
        job = api.start_job()
        api.upload(job, "name", [b"data"])
        metadata = api.metadata(job, "name")
        assert metadata.metadata_string is None
        assert (metadata.metadata_blob_length, metadata.metadata_blob_checksum) == (None, None)
        assert not metadata.metadata_blob

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"metadata_blob_length": 3}, ["3", "4"]),
            ({"metadata_blob_checksum": hex_of(b"other")}, [hex_of(b"other"), hex_of(b"blob")]),
            ({"metadata_blob_checksum": base64_of(b"other")}, [base64_of(b"other"), base64_of(b"blob")]),
            ({"metadata_blob_checksum": "x"}, []),
            ({"metadata_blob_checksum_algorithm": "SUMMARY"}, []),
        ],
    )
    def test_a_blob_with_another_checksum_or_length_is_refused(self, api, arguments, named):
        job = api.start_job()
        upload = api.start(job, "name")
        wrong = api.complete_operation(job, upload, [], blob=b"blob", **arguments)
        refusal = api.refuses_and_keeps(IllegalArgumentException, wrong)
        assert all(value in refusal.message for value in named)
        api.complete(job, upload, [], blob=b"blob")
        assert api.metadata(job, "name").metadata_blob == Payload(b"blob")


class LinkChunksTests:
    """Control plane 3.2: chunks that the server has are attached without their bytes."""

    def linked(self, index, data, *, form=hex_of, length=None):
        length = len(data) if length is None else length
        return LinkedChunk(index=index, length=length, checksum=form(data), checksum_algorithm="SHA256")

    def test_known_chunks_are_attached_and_the_others_are_missing(self, api):
        job = api.start_job()
        api.put(job, "old", b"known")
        upload = api.start(job, "new")
        chunks = [self.linked(0, b"known"), self.linked(5, b"unknown"), self.linked(7, b"known", form=base64_of)]
        link = LinkChunks(backup_job_id=job, upload_id=upload, chunks=chunks)
        assert api.call(link).missing == [5]
        assert api.call(link).missing == [5], "linking again changes nothing"
        api.chunk(job, upload, 5, b"unknown")
        assert api.call(link).missing == []
        api.complete(job, upload, [b"known", b"unknown", b"known"])
        assert api.read(job)["new"] == b"knownunknownknown"
        listed = api.chunks(job, "new")
        assert [chunk.checksum for chunk in listed] == [hex_of(b"known"), hex_of(b"unknown"), base64_of(b"known")]

    def test_chunks_of_the_base_are_known(self, api):
        api.backup({"old": b"known"})
        job = api.start_job()
        upload = api.start(job, "new")
        link = LinkChunks(backup_job_id=job, upload_id=upload, chunks=[self.linked(0, b"known")])
        assert api.call(link).missing == []

    def test_chunks_of_another_vault_are_missing(self, api):
        """Deduplication stays inside a vault."""
        api.backup({"old": b"only in the other vault"})
        api.new_vault()
        job = api.start_job()
        upload = api.start(job, "new")
        link = LinkChunks(backup_job_id=job, upload_id=upload, chunks=[self.linked(0, b"only in the other vault")])
        assert api.call(link).missing == [0]

    def test_another_length_is_missing(self, api):
        job = api.start_job()
        api.put(job, "old", b"known")
        upload = api.start(job, "new")
        link = LinkChunks(backup_job_id=job, upload_id=upload, chunks=[self.linked(0, b"known", length=4)])
        assert api.call(link).missing == [0]

    def test_another_chunk_at_an_index_is_refused_and_nothing_is_attached(self, api):
        job = api.start_job()
        for data in (b"one", b"two"):
            api.put(job, data.decode(), data)
        upload = api.start(job, "new")
        api.chunk(job, upload, 5, b"one")
        wrong = LinkChunks(backup_job_id=job, upload_id=upload, chunks=[self.linked(0, b"one"), self.linked(5, b"two")])
        refusal = api.refuses_and_keeps(DataAlreadyExistsException, wrong)
        assert (refusal.checksum, refusal.checksum_algorithm) == (hex_of(b"one"), "SHA256")
        contradiction = LinkChunks(
            backup_job_id=job, upload_id=upload, chunks=[self.linked(9, b"one"), self.linked(9, b"two")]
        )
        api.refuses_and_keeps(DataAlreadyExistsException, contradiction)

    def test_no_chunks_and_too_many_are_refused(self, api):
        job = api.start_job()
        upload = api.start(job, "new")
        for count in (0, api.limits.link_chunks_max + 1):
            chunks = [self.linked(index, b"data") for index in range(count)]
            link = LinkChunks(backup_job_id=job, upload_id=upload, chunks=chunks)
            api.refuses_and_keeps(IllegalArgumentException, link)

    @pytest.mark.parametrize(
        "arguments",
        [{"index": -1}, {"index": 2**63}, {"length": -1}, {"length": 64 * MIB + 1}, {"checksum": "x"}],
    )
    def test_wrong_chunks_are_refused(self, api, arguments):
        job = api.start_job()
        upload = api.start(job, "new")
        right = {"index": 0, "length": 4, "checksum": hex_of(b"data"), "checksum_algorithm": "SHA256"}
        wrong = LinkChunks(backup_job_id=job, upload_id=upload, chunks=[LinkedChunk(**(right | arguments))])
        api.refuses_and_keeps(IllegalArgumentException, wrong)

    def test_uploads_that_accept_no_chunks(self, api):
        job = api.start_job()
        chunks = [self.linked(0, b"data")]
        complete = api.upload(job, "name", [b"data"])
        unknown = LinkChunks(backup_job_id=job, upload_id="x", chunks=chunks)
        api.refuses_and_keeps(ResourceNotFoundException, unknown)
        closed = LinkChunks(backup_job_id=job, upload_id=complete, chunks=chunks)
        api.refuses_and_keeps(IllegalArgumentException, closed)


class ManyChunksTests:
    """Chunk lists of several parts: about 2,500 chunks, linked instead of sent."""

    BLOCKS = (b"a", b"bb", b"ccc")

    def attach(self, api, job, upload, count, *, first=0, step=1):
        chunks = [
            LinkedChunk(
                index=first + step * place,
                length=len(self.BLOCKS[place % 3]),
                checksum=hex_of(self.BLOCKS[place % 3]),
                checksum_algorithm="SHA256",
            )
            for place in range(count)
        ]
        for start in range(0, count, 1000):
            part = chunks[start : start + 1000]
            assert api.call(LinkChunks(backup_job_id=job, upload_id=upload, chunks=part)).missing == []

    @pytest.mark.parametrize("count", [999, 1000, 1001, 2500])
    @pytest.mark.parametrize("step", [1, 3])
    def test_long_lists_are_read_back_from_any_page(self, api, count, step):
        job = api.start_job()
        for data in self.BLOCKS:
            api.put(job, data.decode(), data)
        upload = api.start(job, "long")
        self.attach(api, job, upload, count, first=10, step=step)
        contents = [self.BLOCKS[place % 3] for place in range(count)]
        api.complete(job, upload, contents)
        job = api.restore(api.commit(job))
        listed = api.chunks(job, "long")
        assert [chunk.index for chunk in listed] == [10 + step * place for place in range(count)]
        assert [chunk.checksum for chunk in listed] == [hex_of(data) for data in contents]
        assert api.found(job, "long").chunks_count == count
        token = api.found(job, "long").object_token
        odd = api.listed(ListChunks(storage_job_id=job, object_token=token, max_results=97))
        assert [chunk.index for chunk in odd] == [chunk.index for chunk in listed]
