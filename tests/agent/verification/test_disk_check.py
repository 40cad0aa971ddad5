"""Verification of a disk image."""

from __future__ import annotations

from cryostore.agent.report import Report
from cryostore.agent.verification.archive_check import verify_archive
from cryostore.core.limits import MIB
from support.archives.single_file import disks


def test_verifying_a_disk(local_runs, image):
    disks(local_runs).disk(image)
    report = Report()
    with local_runs.opened() as archive:
        verify_archive(archive, report, data=True)
    assert (report.issue_count, report.files, report.read_bytes) == (0, 1, 4 * MIB + 5)
