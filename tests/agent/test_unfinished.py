"""Runs that end early: what the next one takes over, and what stands in its way."""

from __future__ import annotations

import errno
import os
import random

import pytest

from cryostore.agent.job import open_job
from cryostore.agent.unfinished import noted
from cryostore.agent.upload import THREADS
from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import MIB
from cryostore.model.chunks import PutChunk
from cryostore.model.errors import ServiceUnavailableException
from cryostore.model.objects import DeleteObject
from support.agent import seen, write


def noise(length, seed):
    return random.Random(seed).randbytes(length)


class Killed(BaseException):
    """Ends a run as a kill would: nothing is tidied up."""


class Counting:
    """A store that counts the chunks it takes, and may let the run die."""

    def __init__(self, call, die_after=None):
        self.inner = call
        self.die_after = die_after
        self.chunks = 0
        self.dead = False

    def call(self, operation):
        if self.dead:
            raise Killed
        if isinstance(operation, PutChunk):
            if self.die_after is not None and self.chunks >= self.die_after:
                self.dead = True
                raise Killed
            self.chunks += 1
        return self.inner.call(operation)


def test_what_a_killed_run_sent_is_not_sent_again(runs, tmp_path):
    write(tmp_path / "source", {f"{n:02}": noise(MIB, f"{runs.resource} {n}") for n in range(30)})
    with noted(str(tmp_path / "notes"), "a") as note:
        first = Counting(runs.call, die_after=20)
        call, runs.call = runs.call, first
        with pytest.raises(Killed):
            runs.backup(tmp_path / "source", unfinished=Deaf(note))
        second = runs.call = Counting(call)
        report, _ = runs.backup(tmp_path / "source", unfinished=note)
        runs.call = call
    assert first.chunks == 20
    with runs.opened() as archive:
        chunks = sum(archive.chunks_count(each.number) for each in archive.header.objects)
    # What was under way when the run died may or may not have arrived; and there is a catalog.
    assert second.chunks <= chunks - first.chunks + THREADS + 1
    assert report.issue_count == 0
    runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


class Deaf:
    """A note as a killed process leaves it: nobody says that the job has ended."""

    def __init__(self, note):
        self.job_id = note.job_id
        self.begin = note.begin

    def end(self):
        """Not told."""


def test_a_job_whose_view_has_changed_is_not_gone_on_with(local_runs, tmp_path):
    write(tmp_path / "source", {"file": noise(MIB, local_runs.resource)})
    local_runs.backup(tmp_path / "source")
    with noted(str(tmp_path / "notes"), "a") as note:
        job = open_job(local_runs.call, "Default", local_runs.resource, {}, note)
        local_runs.call.call(DeleteObject(backup_job_id=job.job_id, object_name="content-00000001"))
        _, outcome = local_runs.backup(tmp_path / "source", unfinished=note)
    assert outcome.same
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_a_job_of_somebody_else_is_left_alone(local_runs, tmp_path):
    write(tmp_path / "source", {"file": b"file"})
    job = open_job(local_runs.call, "Default", local_runs.resource, {})
    with pytest.raises(ServiceUnavailableException, match="another backup of this resource is running"):
        local_runs.backup(tmp_path / "source")
    job.give_up("test")
    assert local_runs.backup(tmp_path / "source")[1].recovery_point_arn


def test_two_runs_of_one_resource_do_not_share_a_note(tmp_path):
    with (
        noted(str(tmp_path), "store", "vault", "a"),
        noted(str(tmp_path), "store", "vault", "b"),
        pytest.raises(ConfigurationError, match="is running on this machine"),
        noted(str(tmp_path), "store", "vault", "a"),
    ):
        pass
    with noted(str(tmp_path), "store", "vault", "a") as note:
        note.begin("job")
    with noted(str(tmp_path), "store", "vault", "a") as note:
        assert note.job_id() == "job"


def test_without_a_folder_there_is_no_note(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for folder in (None, str(tmp_path / "file")):
        with noted(folder, "a") as note:
            assert note is None


def test_a_note_that_cannot_be_written_is_done_without(local_runs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(tmp_path / "source", {"file": b"x"})
    with noted(str(tmp_path / "notes"), "a") as note:
        monkeypatch.setattr(os, "pwrite", full)
        monkeypatch.setattr(os, "ftruncate", full)
        _, outcome = local_runs.backup(tmp_path / "source", unfinished=note)
    assert outcome.recovery_point_arn == local_runs.latest()
