"""The aws CLI: the last version with `backupstorage`, and a current one with our data folder."""

from __future__ import annotations

import json
import subprocess
import uuid

import pytest

from cryostore.core.digest import sha256, summary
from support.clients.compatibility import commit_and_restore

pytestmark = pytest.mark.compat
ROLE = "arn:aws:iam::000000000000:role/backup-agent"
SECONDS_MAX = 60
DATA = b"chunk \x00\xff" * 1000
NAME = "a/b %2F \u6f22\U0001f600"


class Aws:
    """An aws CLI in its environment, in a folder of its own."""

    def __init__(self, command, environment, folder):
        self.command = command
        self.environment = environment
        self.folder = folder

    def __call__(self, *arguments):
        """Run a command; return its output as JSON, or None."""
        run = self.run(*arguments)
        assert run.returncode == 0, run.stderr.decode(errors="replace")
        return json.loads(run.stdout) if run.stdout.strip() else None

    def run(self, *arguments):
        """Run a command that may fail."""
        return subprocess.run(
            [self.command, *arguments],
            capture_output=True,
            env=self.environment,
            cwd=self.folder,
            timeout=SECONDS_MAX,
            check=False,
        )


@pytest.fixture(params=["2024", "current"])
def aws(request, environment, data_path, tmp_path):
    """The aws CLI of 2024, and the current one with our data folder."""
    folder = request.getfixturevalue(f"sdk_{request.param}")
    extra = {} if request.param == "2024" else {"AWS_DATA_PATH": str(data_path)}
    (tmp_path / "chunk").write_bytes(DATA)
    (tmp_path / "blob").write_bytes(b"blob")
    return Aws(folder / "bin" / "aws", environment | extra | {"LANG": "C.UTF-8"}, tmp_path)


def test_nine_operations(aws, call):
    """A backup and a restore typed at a shell, all nine operations, compared byte for byte."""
    resource = f"arn:aws:cryo:local-1:000000000000:Stream:host:{uuid.uuid4()}"
    started = aws(
        "backup", "start-backup-job", "--backup-vault-name", "Default", "--resource-arn", resource,
        "--iam-role-arn", ROLE,
    )  # fmt: skip
    job = ("--backup-job-id", started["BackupJobId"])
    upload = aws("backupstorage", "start-object", *job, "--object-name", NAME)["UploadId"]
    checksum = sha256(DATA).hex()
    stored = aws(
        "backupstorage", "put-chunk", *job, "--upload-id", upload, "--chunk-index", "3", "--data", "chunk",
        "--length", str(len(DATA)), "--checksum", checksum, "--checksum-algorithm", "SHA256",
    )  # fmt: skip
    assert stored == {"ChunkChecksum": checksum, "ChunkChecksumAlgorithm": "SHA256"}
    whole = summary([sha256(DATA)]).hex()
    aws(
        "backupstorage", "notify-object-complete", *job, "--upload-id", upload, "--object-checksum", whole,
        "--object-checksum-algorithm", "SUMMARY", "--metadata-string", "typed", "--metadata-blob", "blob",
    )  # fmt: skip
    aws("backupstorage", "put-object", *job, "--object-name", "gone", "--inline-chunk", "chunk")
    aws("backupstorage", "delete-object", *job, "--object-name", "gone")
    restore_job_id = commit_and_restore(call, started["BackupJobId"])
    _read_back(aws, ("--storage-job-id", restore_job_id), whole)


def _read_back(aws, job, whole):
    (item,) = aws("backupstorage", "list-objects", *job)["ObjectList"]
    assert (item["Name"], item["ObjectChecksum"], item["MetadataString"]) == (NAME, whole, "typed")
    token = ("--object-token", item["ObjectToken"])
    (chunk,) = aws("backupstorage", "list-chunks", *job, *token)["ChunkList"]
    assert (chunk["Index"], chunk["Length"]) == (3, len(DATA))
    got = aws("backupstorage", "get-chunk", *job, "--chunk-token", chunk["ChunkToken"], "out")
    assert got["Checksum"] == sha256(DATA).hex()
    assert (aws.folder / "out").read_bytes() == DATA
    metadata = aws("backupstorage", "get-object-metadata", *job, *token, "out-blob")
    assert (metadata["MetadataString"], metadata["MetadataBlobLength"]) == ("typed", 4)
    assert (aws.folder / "out-blob").read_bytes() == b"blob"


def test_errors_name_the_exception(aws):
    """A failure is reported under the modelled error's name, with its message, and a non-zero exit code."""
    failed = aws.run("backupstorage", "list-objects", "--storage-job-id", "no-such-job")
    assert failed.returncode != 0
    assert b"ResourceNotFoundException" in failed.stderr
    assert b"NO-SUCH-JOB" in failed.stderr.upper()


def test_vaults_listed_with_the_credentials_file_alone(aws):
    """As the README promises, the credentials file and the endpoint are enough."""
    listed = aws("backup", "list-backup-vaults")
    assert "Default" in [vault["BackupVaultName"] for vault in listed["BackupVaultList"]]
