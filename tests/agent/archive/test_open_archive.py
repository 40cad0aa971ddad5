"""Opening the archive of a recovery point: a restore job is open meanwhile, and ends with the context."""

from __future__ import annotations

import pytest

from cryostore.agent.archive.open_archive import open_archive
from cryostore.agent.archive.recovery_points import find_point
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.client import pages
from cryostore.model.restore_jobs import ListRestoreJobs
from support.archives.agent import write


def statuses(call, arn):
    """The status of each restore job of a recovery point."""
    return [job.status for job in pages.items(call, ListRestoreJobs()) if job.recovery_point_arn == arn]


@pytest.fixture
def point(local_runs, tmp_path):
    write(tmp_path / "source", {"file": b"file"})
    local_runs.backup(tmp_path / "source")
    return find_point(local_runs.call, "latest", resource=local_runs.resource)


def test_the_restore_job_is_completed_at_the_end(local_runs, point):
    with open_archive(local_runs.call, point, "test") as archive:
        assert archive.header.files == 1
        assert len(statuses(local_runs.call, point.recovery_point_arn)) == 1
        assert "COMPLETED" not in statuses(local_runs.call, point.recovery_point_arn)
    assert statuses(local_runs.call, point.recovery_point_arn) == ["COMPLETED"]


def test_the_restore_job_fails_if_the_context_does(local_runs, point):
    with pytest.raises(ArchiveDamagedError), open_archive(local_runs.call, point, "test"):
        raise ArchiveDamagedError("damaged")
    assert statuses(local_runs.call, point.recovery_point_arn) == ["FAILED"]
