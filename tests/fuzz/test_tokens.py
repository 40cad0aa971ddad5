"""Forged, altered, swapped and stale tokens and ids over HTTP (B.7, B.9): they give access to nothing."""

from __future__ import annotations

import base64

import pytest
from hypothesis import assume, given, note
from hypothesis import strategies as st

from cryostore.model.chunks import GetChunk, ListChunks
from cryostore.model.errors import IllegalArgumentException, ResourceNotFoundException
from cryostore.model.jobs import DescribeBackupJob
from cryostore.model.objects import GetObjectMetadata, ListObjects, NotifyObjectComplete
from support.requests.api import Api, hex_of, summary_hex
from support.requests.scrutiny import stored

KINDS = ["page", "object", "chunk page", "chunk"]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
FILTERS = [{}, {"created_after": 1.0}, {"created_before": 4e9}, {"created_after": 1.0, "created_before": 4e9}]
REFUSED = (IllegalArgumentException, ResourceNotFoundException)


class Jobs:
    """Storage jobs with the same two objects, of several chunks each; one job has ended."""

    def __init__(self, api: Api) -> None:
        self.api = api
        job = api.start_job()
        for name in ("one", "two"):
            api.upload(job, name, [name.encode(), b"2", b"3"], metadata_string=name)
        arn = api.commit(job)
        self.running = api.running_job()
        self.ids = [self.running, f"{self.running}-BASE", api.restore(arn), api.restore(arn)]
        ended = api.restore(arn)
        self.stale = self.tokens_of(ended)
        self.ended = ended
        api.end_restore(ended)
        self.tokens = {job: self.tokens_of(job) for job in self.ids}
        self.upload = api.start(self.running, "upload")
        api.chunk(self.running, self.upload, 0, b"x")

    def tokens_of(self, job):
        """One token of each kind and object: {(kind, name): token}."""
        call = self.api.call
        found = {("page", ""): call(ListObjects(storage_job_id=job, max_results=1)).next_token}
        for one in call(ListObjects(storage_job_id=job)).object_list:
            listed = call(ListChunks(storage_job_id=job, object_token=one.object_token, max_results=1))
            found["object", one.name] = one.object_token
            found["chunk page", one.name] = listed.next_token
            found["chunk", one.name] = listed.chunk_list[0].chunk_token
        return found


@pytest.fixture(scope="module")
def jobs(server, client):
    return Jobs(Api(client, server.data_dir))


def use(kind, job, token, object_token=None, **filters):
    """Return a request that takes a token of this kind."""
    if kind == "page":
        return ListObjects(storage_job_id=job, next_token=token, **filters)
    if kind == "chunk":
        return GetChunk(storage_job_id=job, chunk_token=token)
    if kind == "chunk page":
        return ListChunks(storage_job_id=job, object_token=object_token, next_token=token)
    return ListChunks(storage_job_id=job, object_token=token)


def decoded(token):
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@st.composite
def altered(draw, token):
    """Return a token that differs from this one a little or completely."""
    how = draw(st.sampled_from(["bit", "cut", "longer", "character", "padding", "spelling", "forged", "raw"]))
    data = decoded(token)
    at = draw(st.integers(0, len(data) - 1))
    place = draw(st.integers(0, len(token) - 1))
    found = {
        "bit": lambda: encoded(data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]),
        "cut": lambda: token[:place] or "A",
        "longer": lambda: token + draw(st.text(ALPHABET, min_size=1, max_size=8)),
        "character": lambda: token[:place] + draw(st.sampled_from(ALPHABET + "+/=. ~é\0\n")) + token[place + 1 :],
        "padding": lambda: token + "=" * draw(st.integers(1, 4)),
        "spelling": lambda: token[:-1] + ALPHABET[ALPHABET.index(token[-1]) ^ 1],
        "forged": lambda: encoded(draw(st.binary(min_size=1, max_size=80))),
        "raw": lambda: draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)),
    }[how]()
    assume(found not in (token, ".", ".."))
    return found


@given(data=st.data(), kind=st.sampled_from(KINDS), name=st.sampled_from(["one", "two"]))
def test_an_altered_token_is_refused(jobs, data, kind, name):
    job = data.draw(st.sampled_from(jobs.ids))
    tokens = jobs.tokens[job]
    wrong = data.draw(altered(tokens[kind, name if kind != "page" else ""]))
    jobs.api.refuses(IllegalArgumentException, use(kind, job, wrong, tokens["object", name]))
    if kind == "object":
        jobs.api.refuses(IllegalArgumentException, GetObjectMetadata(storage_job_id=job, object_token=wrong))


@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_a_token_is_valid_only_for_its_own_job_and_use(jobs, data, kind):
    """Every use and every job except its own refuse a token."""
    job, other = (data.draw(st.sampled_from(jobs.ids)) for _ in range(2))
    key = data.draw(st.sampled_from(list(jobs.tokens[other])))
    name = data.draw(st.sampled_from(["one", "two"]))
    filters = data.draw(st.sampled_from(FILTERS)) if kind == "page" else {}
    operation = use(kind, job, jobs.tokens[other][key], jobs.tokens[job]["object", name], **filters)
    note((kind, key, job == other, name, filters))
    fits = job == other and key[0] == kind and not filters and (kind != "chunk page" or key[1] == name)
    if fits:
        jobs.api.call(operation)
    else:
        jobs.api.refuses(IllegalArgumentException, operation)


@pytest.mark.parametrize("kind", KINDS)
def test_stale_tokens_are_refused(jobs, kind):
    """The ended job is not found, and another job refuses its tokens."""
    name = "" if kind == "page" else "one"
    token, object_token = jobs.stale[kind, name], jobs.stale["object", "one"]
    jobs.api.refuses(ResourceNotFoundException, use(kind, jobs.ended, token, object_token))
    for job in jobs.ids:
        jobs.api.refuses(IllegalArgumentException, use(kind, job, token, jobs.tokens[job]["object", "one"]))


@given(data=st.data())
def test_wrong_ids_write_nothing(server, jobs, data):
    """Every id and token instead of a job id or an upload id: nothing is stored, and the upload stays open."""
    others = [*jobs.ids[1:], jobs.ended, *jobs.stale.values(), *jobs.tokens[jobs.running].values(), "x", "0", "\0", "é"]
    job = data.draw(st.sampled_from([jobs.running, *others]))
    upload = data.draw(st.sampled_from([jobs.upload, jobs.upload.swapcase() + "x", jobs.running, *others]))
    assume((job, upload) != (jobs.running, jobs.upload))
    before = stored(server.data_dir)
    for operation in (
        jobs.api.chunk_operation(job, upload, 0, b"y"),
        jobs.api.chunk_operation(job, upload, 1, b"y"),
        NotifyObjectComplete(
            backup_job_id=job,
            upload_id=upload,
            object_checksum=summary_hex(b"x"),
            object_checksum_algorithm="SUMMARY",
        ),
    ):
        with pytest.raises(REFUSED):
            jobs.api.call(operation)
    assert stored(server.data_dir) == before
    assert jobs.api.call(DescribeBackupJob(backup_job_id=jobs.running)).state == "RUNNING"
    assert hex_of(b"x") == jobs.api.chunk(jobs.running, jobs.upload, 0, b"x").chunk_checksum
