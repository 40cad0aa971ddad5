"""Verification of an archive: damage is an issue, and an unavailable store is an error."""

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
    """A store that answers requests for content chunks with an error."""

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
def test_damage_is_an_issue_and_an_unavailable_store_is_an_error(local_runs, tmp_path, back_up):
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


def test_a_sound_disk_image_has_no_issues(local_runs, image):
    disks(local_runs).disk(image)
    report = Report()
    with local_runs.opened() as archive:
        verify_archive(archive, report, data=True)
    assert (report.issue_count, report.files, report.read_bytes) == (0, 1, 4 * MIB + 5)
