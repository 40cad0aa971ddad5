"""Commits of the service in process."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from conformance import api_commits
from cryostore.service import Service
from cryostore.service.service import CallAs
from support.catalogs.counted_database import CountedDatabase
from support.requests.api import Api, sha
from support.stores.memory_store import ROOT, MemoryStore, Process


class TestCommit(api_commits.CommitTests):
    pass


class TestCommitOnObject(api_commits.CommitOnObjectTests):
    pass


class TestRestoreMetadata(api_commits.RestoreMetadataTests):
    pass


@pytest.fixture
def counted():
    """The API over a service whose database counts, and that database."""
    process = Process(MemoryStore())
    database = CountedDatabase(process.database)
    service = Service(replace(process.context, database=database), process.service.access, process.blobs)
    return Api(CallAs(service, ROOT), None, clock=process.store.clock), database


@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize("checked", [True, False])
def test_a_commit_costs_few_statements(counted, base, checked):
    """Both for the agent, which gives a checksum and metadata, and for a client that gives neither."""
    api, database = counted
    contents = {f"{number:02}": b"1" for number in range(20)} if base else {}
    if base:
        api.backup(contents)
    job = api.running_job()
    for name in ("05", "06", "07"):
        api.put(job, name, b"2")
        contents[name] = b"2"
    upload = api.start(job, "large")
    api.chunk(job, upload, 0, b"3")
    api.complete(job, upload, [b"3"])
    contents["large"] = b"3"
    whole = sha256(b"".join(name.encode() + b"\0" + sha(sha(data)) for name, data in sorted(contents.items())))
    database.statements.clear()
    database.transactions.clear()
    arguments = {"object_count": len(contents), "restore_metadata": {"kind": "x"}, "discard_open_uploads": True}
    arguments |= {"objects_checksum": whole.hexdigest(), "objects_checksum_algorithm": "SUMMARY"}
    arn = api.commit(job, **(arguments if checked else {}))
    assert len(database.statements) <= 15
    assert len(database.transactions) <= 2
    assert api.restored(arn) == contents


def test_a_commit_with_many_uploads_deletes_their_rows(counted):
    """A few statements delete the rows of any number of complete uploads; open uploads are discarded."""
    api, database = counted
    job = api.running_job()
    contents = {f"{number:03}": b"data" for number in range(120)}
    for name, data in contents.items():
        upload = api.start(job, name)
        api.chunk(job, upload, 0, data)
        api.complete(job, upload, [data])
    api.chunk(job, api.start(job, "open"), 0, b"unfinished")
    database.statements.clear()
    arn = api.commit(job, discard_open_uploads=True)
    assert len(database.statements) <= 30
    assert database.read(lambda t: t.row("SELECT count(*) FROM upload")) == (0,)
    assert database.read(lambda t: t.row("SELECT count(*) FROM upload_chunk")) == (0,)
    assert api.restored(arn) == contents
