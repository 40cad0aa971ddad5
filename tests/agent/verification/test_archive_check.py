"""Verification of an archive: damage is named, and a store that cannot answer is not damage."""

from __future__ import annotations

import random

import pytest

from cryostore.agent.report import Report
from cryostore.agent.verification.archive_check import verify_archive
from cryostore.core.limits import MIB
from cryostore.model.chunks import GetChunk
from cryostore.model.errors import ServiceInternalException, ServiceUnavailableException
from support.archives.agent import write
from support.archives.single_file import disks


class Refusing:
    """A store that refuses the content, once the catalog was read, in one way or another."""

    def __init__(self, call, error):
        self.inner = call
        self.error = error

    def call(self, operation):
        answer = self.inner.call(operation)
        if isinstance(operation, GetChunk) and answer.length > MIB // 2:
            raise self.error
        return answer


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def backed_up_tree(runs, tmp_path):
    write(tmp_path / "source", {"large": noise(2 * MIB), "small": b"x"})
    runs.backup(tmp_path / "source")


def backed_up_disk(runs, tmp_path):
    (tmp_path / "disk").write_bytes(noise(2 * MIB))
    disks(runs).disk(tmp_path / "disk")


@pytest.mark.parametrize("back_up", [backed_up_tree, backed_up_disk])
def test_damage_is_reported_and_a_store_that_is_gone_ends_the_run(local_runs, tmp_path, back_up):
    back_up(local_runs, tmp_path)
    local_runs.call = Refusing(local_runs.call, ServiceInternalException("stored data fails its verification"))
    report = Report()
    with local_runs.opened() as archive:
        verify_archive(archive, report, data=True)
    assert report.issue_count
    assert {issue.reason for issue in report.issues} == {"stored data fails its verification"}
    local_runs.call.error = ServiceUnavailableException("gone")
    with local_runs.opened() as archive, pytest.raises(ServiceUnavailableException):
        verify_archive(archive, Report(), data=True)


def test_verifying_a_disk(local_runs, image):
    disks(local_runs).disk(image)
    report = Report()
    with local_runs.opened() as archive:
        verify_archive(archive, report, data=True)
    assert (report.issue_count, report.files, report.read_bytes) == (0, 1, 4 * MIB + 5)
