"""Streams: the content is the same, known data is not sent again, and a failure leaves no recovery point."""

from __future__ import annotations

import os
import random
import sys
import tracemalloc

import pytest

from cryostore.agent.backup.job import MAY_BE_MADE
from cryostore.agent.errors import SourceError
from cryostore.agent.report import Report
from cryostore.agent.streams.stream import backup_stream, in_shell, running
from cryostore.cli import progress
from cryostore.client import pages
from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import MIB
from cryostore.model.chunks import PutChunk
from cryostore.model.errors import ServiceUnavailableException
from cryostore.model.jobs import CommitBackupJob, ListBackupJobs
from support.archives.single_file import piped, streams


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def python(code):
    return [sys.executable, "-c", code]


def jobs_of(runs):
    found = pages.items(runs.call, ListBackupJobs())
    return [job for job in found if job.resource_arn == f"arn:aws:cryo:::stream:{runs.resource}"]


@pytest.mark.parametrize("length", [0, 1, 5 * MIB + 3, 20 * MIB])
def test_a_stream_is_restored(runs, tmp_path, length):
    data = noise(length)
    report, outcome = streams(runs).stream(data)
    assert (report.file_bytes, report.files, outcome.same) == (length, 1, False)
    assert streams(runs).content() == data
    streams(runs).restore(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


def test_the_backup_of_an_unchanged_stream_sends_the_listing_at_most(runs):
    data = noise(20 * MIB)
    streams(runs).stream(data)
    report, outcome = streams(runs).stream(data)
    assert outcome.same
    assert report.unchanged == 1
    assert report.sent_bytes < 4096
    assert streams(runs).content() == data


def test_a_changed_byte_and_an_insertion_send_about_a_chunk_each(runs):
    data = noise(24 * MIB)
    streams(runs).stream(data)
    changed = data[: 8 * MIB] + b"inserted" + data[8 * MIB : -1] + b"x"
    report, outcome = streams(runs).stream(changed)
    assert not outcome.same
    assert report.sent_bytes < 9 * MIB
    assert streams(runs).content() == changed


def test_a_new_backup_does_not_change_an_earlier_recovery_point(runs):
    streams(runs).stream(b"one")
    first = runs.latest()
    streams(runs).stream(b"two")
    assert (streams(runs).content(first), streams(runs).content()) == (b"one", b"two")


def test_a_backup_replaces_the_content_object_of_its_base(local_runs):
    for seed in range(3):
        streams(local_runs).stream(noise(MIB, seed))
    with local_runs.opened() as archive:
        assert len(archive.object_names) == 2


def test_the_output_of_a_command_is_backed_up(runs):
    report, _ = streams(runs).stream(python("print('x' * 100_000)"))
    assert report.file_bytes == 100_001
    assert streams(runs).content() == b"x" * 100_000 + b"\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('x' * 9_000_000); raise SystemExit(3)", "exited with code 3"),
        ("import os; print('x', flush=True); os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("raise SystemExit(143)", r"exited with code 143 \(SIGTERM\)"),
    ],
)
def test_no_recovery_point_is_made_of_a_failed_command(runs, code, said):
    with pytest.raises(SourceError, match=said):
        streams(runs).stream(python(code))
    assert [job.state for job in jobs_of(runs)] == ["FAILED"]
    message = jobs_of(runs)[0].status_message
    assert message == "failed" if runs.key else "no recovery point is made" in message
    with pytest.raises(ConfigurationError, match="no recovery point"):
        runs.latest()


def test_the_job_of_a_missing_command_fails(local_runs):
    with pytest.raises(SourceError, match="cannot be run"):
        streams(local_runs).stream(["/nonexistent/command"])
    assert [job.state for job in jobs_of(local_runs)] == ["FAILED"]


def test_a_failed_run_stops_its_command(local_runs):
    """The store fails while an endless command runs."""

    class Failing:
        def call(self, operation):
            if isinstance(operation, PutChunk):
                raise ServiceUnavailableException("no room")
            return call.call(operation)

    call = local_runs.call
    local_runs.call = Failing()
    with pytest.raises(ServiceUnavailableException, match="no room"):
        streams(local_runs).stream(python("while True: print('x' * 1_000_000)"))
    local_runs.call = call
    assert [(job.state, job.status_message) for job in jobs_of(local_runs)] == [("FAILED", "no room")]


def test_an_interrupt_fails_the_job(local_runs):
    class Interrupted:
        def call(self, operation):
            if isinstance(operation, PutChunk):
                raise KeyboardInterrupt
            return call.call(operation)

    call = local_runs.call
    local_runs.call = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        streams(local_runs).stream(noise(9 * MIB))
    local_runs.call = call
    assert [job.state for job in jobs_of(local_runs)] == ["FAILED"]


@pytest.mark.parametrize("is_made", [False, True])
def test_an_interrupted_commit_warns_that_the_recovery_point_may_exist(local_runs, is_made):
    class Interrupted:
        def call(self, operation):
            if not isinstance(operation, CommitBackupJob) or operation.outcome is not None:
                return call.call(operation)
            if is_made:
                call.call(operation)
            raise KeyboardInterrupt

    call = local_runs.call
    local_runs.call = Interrupted()
    with pytest.raises(KeyboardInterrupt) as raised, progress.interrupted("no recovery point was made"):
        streams(local_runs).stream(noise(MIB))
    assert raised.value.__notes__ == [MAY_BE_MADE]
    local_runs.call = call
    assert [job.state for job in jobs_of(local_runs)] == ["COMPLETED" if is_made else "FAILED"]


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b"])
def test_an_invalid_file_name_is_refused(local_runs, name):
    with pytest.raises(ConfigurationError, match="not a valid file name"):
        streams(local_runs).options(name)


def test_a_file_name_may_have_any_other_bytes(local_runs):
    runs = streams(local_runs)
    with piped(b"data") as fd:
        backup_stream(local_runs.call, runs.options(b"\xff\n\x1b[2J"), fd, Report())
    with runs.files() as files:
        assert files.only().path == b"\xff\n\x1b[2J"
    assert runs.content() == b"data"


def test_memory_does_not_grow_with_the_stream(local_runs):
    """240 MiB of zeros have many chunks and few stored bytes. The number of chunks in flight depends on the machine."""
    tracemalloc.start()
    try:
        streams(local_runs).stream(["head", "-c", str(240 * MIB), "/dev/zero"])
        assert tracemalloc.get_traced_memory()[1] < 100 * MIB
    finally:
        tracemalloc.stop()


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_output_of_a_command_is_read():
    with running([sys.executable, "-c", "print('x' * 5)"]) as fd, os.fdopen(os.dup(fd), "rb") as output:
        assert output.read() == b"xxxxx\n"


def test_a_failure_in_any_part_of_a_pipe_is_raised():
    if in_shell("")[0] == "/bin/sh":
        pytest.skip("this needs the pipefail of bash")
    with pytest.raises(SourceError, match="exited with code 1"), running(in_shell("false | cat")) as fd:
        assert os.read(fd, 1) == b""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit(3)", "exited with code 3: no recovery point is made"),
        ("raise SystemExit(143)", r"exited with code 143 \(SIGTERM\)"),
        ("raise SystemExit(255)", "exited with code 255: "),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
    ],
)
def test_a_failure_is_raised_when_the_context_ends(code, message):
    with pytest.raises(SourceError, match=message), running([sys.executable, "-c", code]) as fd:
        assert os.read(fd, 1) == b""


def test_a_missing_command_cannot_be_run():
    with pytest.raises(SourceError, match="cannot be run: No such file"), running(["/nonexistent/command"]):
        pass


def test_an_error_in_the_context_stops_the_command():
    class ReaderFailedError(Exception):
        pass

    with pytest.raises(ReaderFailedError), running(["sleep", "1000"]):
        raise ReaderFailedError
