"""The last official SDKs, and current ones with our data folder: all nine operations, read back byte for byte."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from cryostore.core.digest import sha256, summary
from support.clients import compatibility
from support.clients.compatibility import commit_and_restore, expected, finish, request, start_job

pytestmark = pytest.mark.compat
PROGRAM = Path(__file__).parent / "programs" / "boto.py"
SECONDS_MAX = 120


def ask(command, verb, job_id, plan, environment):
    """Run the program of a client and return its output."""
    run = subprocess.run(
        command,
        input=request(verb, job_id, plan).encode(),
        capture_output=True,
        env=environment,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode(errors="replace")
    return json.loads(run.stdout)


def back_up_and_restore(call, command, environment):
    """Let a client write the plan and read it back."""
    plan = compatibility.plan()
    job_id = start_job(call)
    written = ask(command, "write", job_id, plan, environment)
    first = sha256(b"")
    assert written == {"duplicate": summary([first]).hex()}, "the typed exception carries the checksum of what is there"
    restore_job_id = commit_and_restore(call, job_id)
    assert ask(command, "read", restore_job_id, plan, environment) == expected(plan)
    finish(call, restore_job_id)


def test_botocore_of_2024(call, sdk_2024, environment):
    """botocore 1.34.124, with its own model of the service."""
    back_up_and_restore(call, [sdk_2024 / "bin" / "python", PROGRAM], environment)


def test_current_botocore_with_our_data_folder(call, sdk_current, environment, data_path):
    """A current botocore gains the service through AWS_DATA_PATH."""
    back_up_and_restore(
        call, [sdk_current / "bin" / "python", PROGRAM], environment | {"AWS_DATA_PATH": str(data_path)}
    )


def test_javascript(call, sdk_javascript, environment):
    """aws-sdk 2.1639.0, the last JavaScript SDK with AWS.BackupStorage."""
    # This SDK reads AWS_SHARED_CREDENTIALS_FILE only if the shared configuration is enabled.
    back_up_and_restore(call, ["node", sdk_javascript / "client.js"], environment | {"AWS_SDK_LOAD_CONFIG": "1"})
