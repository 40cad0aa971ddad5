"""Conformance tests of PutObject, StartObject and DeleteObject (Backup Storage A.2, B.1 to B.6, B.11, B.12)."""

from __future__ import annotations

import pytest

from cryostore.core.digest import Payload
from cryostore.model.errors import DataAlreadyExistsException, IllegalArgumentException, ResourceNotFoundException
from cryostore.model.objects import DeleteObject, PutObject, StartObject
from support.requests.api import base64_of, hex_of, summary_base64, summary_hex

ABSENT_JOB = "00000000-0000-4000-8000-FFFFFFFFFFFF"
NAMES = [
    "a", " ", "a b", "a/b", "//", "/", "a/../b", "x/complete", "x/put-object", "%2F", "%", "a?b=c&d#e", "...", ".a",
    "+", "größe", "日本語", "\U0001f9ca", "e\u0301", "\u00e9", "a" * 1024, "é" * 512, "\u200b", "\u2028",
    "\ue000", "'\";--",
]  # fmt: skip
BAD_NAMES = ["", ".", "..", "a" * 1025, "é" * 512 + "a", "a\0b", "a\nb", "\r", "\x1f", "\x7f", "\x80", "\x85", "\x9f"]
METADATA = ["x", "größe=1 \U0001f9ca", "a" * 1024, "é" * 512, " leading and trailing ", "%0d%0a", "a:b, c; d"]
BAD_METADATA = ["a" * 1025, "é" * 512 + "a", "a\nb", "\r\n", "\0", "\x7f", "\x85", "tab\t"]


class PutObjectTests:
    """Subclass, name it Test..., and give `api`: a support.requests.api.Api."""

    @pytest.mark.parametrize("data", [b"x", bytes(range(256)) * 40, b"\0" * 300_000], ids=["1", "10 KB", "300 KB"])
    def test_an_object_is_read_back(self, api, data):
        job = api.start_job()
        answer = api.put(job, "name", data, inline_chunk_length=len(data), inline_chunk_checksum=hex_of(data))
        assert answer.inline_chunk_checksum == hex_of(data)
        assert answer.inline_chunk_checksum_algorithm == "SHA256"
        assert answer.object_checksum == summary_hex(data)
        assert answer.object_checksum_algorithm == "SUMMARY"
        assert api.read(job) == {"name": data}
        assert api.restored(api.commit(job)) == {"name": data}

    def test_missing_checksums_are_computed(self, api):
        """B.12, in base64, the form of the AWS clients."""
        answer = api.put(api.start_job(), "name", b"data")
        assert (answer.inline_chunk_checksum, answer.object_checksum) == (base64_of(b"data"), summary_base64(b"data"))

    @pytest.mark.parametrize("form", [hex_of, base64_of, lambda data: hex_of(data).upper()])
    def test_the_answer_and_reads_keep_the_form_of_the_checksum(self, api, form):
        """B.3. Upper-case hex is returned in lower case."""
        expected = form(b"data") if form is base64_of else hex_of(b"data")
        job = api.start_job()
        assert api.put(job, "name", b"data", inline_chunk_checksum=form(b"data")).inline_chunk_checksum == expected
        assert [chunk.checksum for chunk in api.chunks(job, "name")] == [expected]
        listed = api.found(job, "name").object_checksum
        assert listed == (summary_base64(b"data") if form is base64_of else summary_hex(b"data"))

    def test_the_summary_has_its_own_form(self, api):
        job = api.start_job()
        answer = api.put(
            job,
            "name",
            b"data",
            inline_chunk_checksum=hex_of(b"data"),
            object_checksum=summary_base64(b"data"),
            object_checksum_algorithm="SUMMARY",
        )
        assert (answer.inline_chunk_checksum, answer.object_checksum) == (hex_of(b"data"), summary_base64(b"data"))
        assert api.found(job, "name").object_checksum == summary_base64(b"data")
        assert api.chunks(job, "name")[0].checksum == hex_of(b"data")

    def test_an_object_without_a_chunk(self, api):
        """Its SUMMARY is the SHA-256 of no bytes (B.4)."""
        job = api.start_job()
        answer = api.put(job, "nothing")
        assert (answer.inline_chunk_checksum, answer.object_checksum) == (base64_of(b""), base64_of(b""))
        assert api.chunks(job, "nothing") == []
        assert (api.found(job, "nothing").chunks_count or 0) == 0

    def test_an_object_with_an_empty_chunk_differs_from_one_without(self, api):
        job = api.start_job()
        answer = api.put(job, "empty", b"", inline_chunk_length=0, inline_chunk_checksum=hex_of(b""))
        assert answer.object_checksum == summary_hex(b"")
        assert [(chunk.index, chunk.length) for chunk in api.chunks(job, "empty")] == [(0, 0)]
        assert api.read(job) == {"empty": b""}

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"inline_chunk_length": 3}, ["3", "4"]),
            ({"inline_chunk_length": 5}, ["5", "4"]),
            ({"inline_chunk_checksum": hex_of(b"other")}, [hex_of(b"other"), hex_of(b"data")]),
            ({"inline_chunk_checksum": base64_of(b"other")}, [base64_of(b"other"), base64_of(b"data")]),
            ({"object_checksum": summary_hex(b"other")}, [summary_hex(b"other"), summary_hex(b"data")]),
            ({"object_checksum": hex_of(b"data")}, [hex_of(b"data"), summary_hex(b"data")]),
        ],
    )
    def test_a_mismatch_is_refused_with_both_values(self, api, arguments, named):
        """B.4, B.12: nothing is stored, and the right request works afterwards."""
        job = api.running_job()
        wrong = PutObject(backup_job_id=job, object_name="name", inline_chunk=Payload(b"data"), **arguments)
        refusal = api.refuses_and_keeps(IllegalArgumentException, wrong)
        assert all(value in refusal.message for value in named)
        api.put(job, "name", b"data")
        assert api.read(job) == {"name": b"data"}

    @pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "g" * 64, "A" * 43, "A" * 43 + "*", "A" * 42 + "B=", "é"])
    @pytest.mark.parametrize("member", ["inline_chunk_checksum", "object_checksum"])
    def test_an_invalid_checksum_is_refused(self, api, member, text):
        job = api.running_job()
        wrong = PutObject(backup_job_id=job, object_name="name", inline_chunk=Payload(b"data"), **{member: text})
        api.refuses_and_keeps(IllegalArgumentException, wrong)

    @pytest.mark.parametrize("algorithm", ["MD5", "sha256", "SUMMARY", ""])
    def test_other_algorithms_are_refused(self, api, algorithm):
        job = api.running_job()
        wrong = PutObject(
            backup_job_id=job,
            object_name="name",
            inline_chunk=Payload(b"data"),
            inline_chunk_checksum=hex_of(b"data"),
            inline_chunk_checksum_algorithm=algorithm,
        )
        api.refuses_and_keeps(IllegalArgumentException, wrong)

    @pytest.mark.parametrize("length", [-1, 64 * 1024 * 1024 + 1, 2**63])
    def test_impossible_lengths_are_refused(self, api, length):
        job = api.running_job()
        wrong = PutObject(backup_job_id=job, object_name="a", inline_chunk=Payload(b"x"), inline_chunk_length=length)
        api.refuses_and_keeps(IllegalArgumentException, wrong)

    def test_a_second_put_replaces_the_object(self, api):
        """B.6: without the throw flag. The same content may be put again."""
        job = api.start_job()
        for data in (b"old", b"old", b"new", b""):
            api.put(job, "name", data)
            assert api.read(job) == {"name": data}
        assert api.restored(api.commit(job, object_count=1)) == {"name": b""}

    def test_the_same_bytes_under_many_names(self, api):
        job = api.start_job()
        for number in range(20):
            api.put(job, f"name-{number}", b"the same")
        assert api.read(job) == {f"name-{number}": b"the same" for number in range(20)}


class DuplicateTests:
    """B.6: with the throw flag, an existing name is refused with the checksum of its object."""

    @pytest.mark.parametrize("data", [b"old", b"new"], ids=["same content", "other content"])
    @pytest.mark.parametrize("form", [hex_of, base64_of])
    def test_put_object_over_a_written_object(self, api, data, form):
        job = api.start_job()
        api.put(job, "name", b"old", inline_chunk_checksum=form(b"old"))
        again = PutObject(backup_job_id=job, object_name="name", inline_chunk=Payload(data), throw_on_duplicate=True)
        refusal = api.refuses_and_keeps(DataAlreadyExistsException, again)
        present = summary_hex(b"old") if form is hex_of else summary_base64(b"old")
        assert (refusal.checksum, refusal.checksum_algorithm) == (present, "SUMMARY")
        assert api.read(job) == {"name": b"old"}

    def test_put_object_over_an_inherited_object(self, api):
        api.backup({"name": b"old"})
        job = api.start_job()
        again = PutObject(backup_job_id=job, object_name="name", inline_chunk=Payload(b"new"), throw_on_duplicate=True)
        assert api.refuses(DataAlreadyExistsException, again).checksum == summary_base64(b"old")

    def test_start_object_over_written_and_inherited_objects(self, api):
        api.backup({"inherited": b"old"})
        job = api.start_job()
        api.put(job, "written", b"older")
        for name, data in (("inherited", b"old"), ("written", b"older")):
            wrong = StartObject(backup_job_id=job, object_name=name, throw_on_duplicate=True)
            assert api.refuses_and_keeps(DataAlreadyExistsException, wrong).checksum == summary_base64(data)

    def test_false_does_not_set_the_flag(self, api):
        job = api.start_job()
        api.put(job, "name", b"old")
        api.put(job, "name", b"new", throw_on_duplicate=False)
        assert api.start(job, "name", throw=False)

    def test_a_free_name_is_no_duplicate(self, api):
        """Names of deleted objects are free, both inherited and written ones."""
        api.backup({"inherited": b"old"})
        job = api.start_job()
        api.put(job, "written", b"old")
        for name in ("inherited", "written"):
            api.delete(job, name)
        for name in ("inherited", "written", "new"):
            api.put(job, name, b"1", throw_on_duplicate=True)
            api.delete(job, name)
            api.start(job, name, throw=True)

    def test_of_two_uploads_of_a_name_only_the_first_completes(self, api):
        """The flag of StartObject applies when the upload is completed."""
        job = api.start_job()
        first, second = (api.start(job, "name", throw=True) for _ in range(2))
        api.chunk(job, first, 0, b"first")
        api.chunk(job, second, 0, b"second")
        api.complete(job, first, [b"first"])
        wrong = api.complete_operation(job, second, [b"second"])
        assert api.refuses_and_keeps(DataAlreadyExistsException, wrong).checksum == summary_hex(b"first")
        assert api.read(job) == {"name": b"first"}

    def test_an_open_upload_is_not_in_the_view(self, api):
        """Until the completion the old object stays. Then the new one replaces it."""
        job = api.start_job()
        api.put(job, "name", b"old")
        upload = api.start(job, "name")
        api.chunk(job, upload, 0, b"new")
        assert api.read(job) == {"name": b"old"}
        api.complete(job, upload, [b"new"])
        assert api.read(job) == {"name": b"new"}


class NameTests:
    """B.11: names of 1 to 1,024 bytes of UTF-8 without control characters, not a dot segment."""

    def test_every_name_is_kept_unchanged(self, api):
        """Slashes, percent signs and the words of other operations are allowed. They are in UTF-8 byte order (B.10)."""
        job = api.start_job()
        for name in NAMES:
            api.put(job, name, name.encode())
        assert api.names(job) == sorted(NAMES, key=str.encode)
        assert api.read(job) == {name: name.encode() for name in NAMES}
        for name in NAMES:
            api.delete(job, name)
        assert api.names(job) == []

    def test_uploads_accept_the_same_names(self, api):
        job = api.start_job()
        for name in NAMES:
            api.upload(job, name, [name.encode()])
        assert api.read(job) == {name: name.encode() for name in NAMES}

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_other_names_are_refused(self, api, name):
        job = api.running_job()
        api.refuses_and_keeps(
            IllegalArgumentException, PutObject(backup_job_id=job, object_name=name, inline_chunk=Payload(b"data"))
        )
        for operation in (StartObject, DeleteObject):
            api.refuses_and_keeps(IllegalArgumentException, operation(backup_job_id=job, object_name=name))


class MetadataStringTests:
    """B.11: up to 1,024 bytes with PutObject, without control characters."""

    @pytest.mark.parametrize("text", METADATA)
    def test_a_metadata_string_is_read_back(self, api, text):
        job = api.start_job()
        api.put(job, "name", b"data", metadata_string=text)
        assert api.found(job, "name").metadata_string == text
        metadata = api.metadata(job, "name")
        assert metadata.metadata_string.strip() == text.strip(), "HTTP removes blanks around the value of a header"
        assert (metadata.metadata_blob_length, metadata.metadata_blob_checksum) == (None, None)

    @pytest.mark.parametrize("text", BAD_METADATA)
    def test_other_texts_are_refused(self, api, text):
        job = api.running_job()
        wrong = PutObject(backup_job_id=job, object_name="name", inline_chunk=Payload(b"x"), metadata_string=text)
        api.refuses_and_keeps(IllegalArgumentException, wrong)

    def test_without_one_none_is_returned(self, api):
        job = api.start_job()
        api.put(job, "name", b"data")
        assert api.found(job, "name").metadata_string is None
        assert api.metadata(job, "name").metadata_string is None

    def test_replacing_an_object_replaces_its_metadata(self, api):
        job = api.start_job()
        api.put(job, "name", b"data", metadata_string="old")
        api.put(job, "name", b"data")
        assert api.metadata(job, "name").metadata_string is None


class DeleteObjectTests:
    """B.1: a written or inherited name leaves the view; an absent one is ResourceNotFoundException."""

    def test_a_written_name(self, api):
        job = api.start_job()
        api.put(job, "gone", b"1")
        api.put(job, "kept", b"2")
        api.delete(job, "gone")
        assert api.read(job) == {"kept": b"2"}
        assert api.restored(api.commit(job, object_count=1)) == {"kept": b"2"}

    def test_an_inherited_name_leaves_the_view_but_not_the_base(self, api):
        base = api.backup({"gone": b"1", "kept": b"2"})
        job = api.start_job()
        api.delete(job, "gone")
        assert api.read(job) == {"kept": b"2"}
        assert api.restored(api.commit(job, object_count=1)) == {"kept": b"2"}
        assert api.restored(base) == {"gone": b"1", "kept": b"2"}

    def test_an_inherited_name_that_was_replaced(self, api):
        """The inherited object does not reappear."""
        api.backup({"name": b"old", "kept": b"1"})
        job = api.start_job()
        api.put(job, "name", b"new")
        api.delete(job, "name")
        assert api.read(job) == {"kept": b"1"}
        api.put(job, "name", b"newest")
        assert api.read(job) == {"kept": b"1", "name": b"newest"}

    def test_an_absent_name(self, api):
        api.backup({"inherited": b"1", "kept": b""})
        job = api.start_job()
        api.put(job, "written", b"1")
        for name in ("inherited", "written"):
            api.delete(job, name)
        for name in ("never", "inherited", "written", "inherite", "INHERITED"):
            wrong = DeleteObject(backup_job_id=job, object_name=name)
            api.refuses_and_keeps(ResourceNotFoundException, wrong)

    def test_an_open_upload_cannot_be_deleted_as_an_object(self, api):
        job = api.start_job()
        upload = api.start(job, "name")
        api.chunk(job, upload, 0, b"data")
        api.refuses(ResourceNotFoundException, DeleteObject(backup_job_id=job, object_name="name"))
        api.complete(job, upload, [b"data"])
        api.delete(job, "name")
        assert api.read(job) == {}


class AbsentJobTests:
    """Every operation on an unknown job gets ResourceNotFoundException."""

    @pytest.mark.parametrize("job", [ABSENT_JOB, "x", "a/b", "..%2F", "é" * 10, "x" * 1024])
    def test_writes(self, api, job):
        for operation in (
            StartObject(backup_job_id=job, object_name="name"),
            PutObject(backup_job_id=job, object_name="name", inline_chunk=Payload(b"data")),
            DeleteObject(backup_job_id=job, object_name="name"),
            api.chunk_operation(job, "upload", 0, b"data"),
            api.complete_operation(job, "upload", [b"data"]),
        ):
            api.refuses_and_keeps(ResourceNotFoundException, operation)

    def test_another_resources_upload_is_unknown(self, api):
        """Uploads belong to their job (B.7)."""
        job = api.start_job()
        other = api.start_job(resource=api.resource + "-other")
        upload = api.start(other, "name")
        api.start(job, "name")
        api.refuses_and_keeps(ResourceNotFoundException, api.chunk_operation(job, upload, 0, b"data"))
        api.refuses_and_keeps(ResourceNotFoundException, api.complete_operation(job, upload, []))
