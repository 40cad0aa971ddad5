"""Shared set-up of all tests: Hypothesis profiles, an environment without AWS settings, and the AWS clients."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cryostore.core import interrupts
from support import project

# `make test` tries the same examples in every run, so that only a change can make it fail. `make stress` tries new
# ones. There are no deadlines, because they would measure the machine. Nothing is kept between runs.
settings.register_profile(
    "moderate",
    deadline=None,
    derandomize=True,
    max_examples=30,
    stateful_step_count=30,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "stress", settings.get_profile("moderate"), derandomize=False, max_examples=1000, print_blob=True
)
settings.register_profile("brief", settings.get_profile("moderate"), max_examples=10)
settings.load_profile("moderate")

TESTS = Path(__file__).parent
AWS_NOWHERE = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_PAGER": "",
}


SHARES = {
    "agent/backup/test_job.py": 2,
    "agent/mount/test_file_system.py": 2,
    "cli/agent/test_stream_backup.py": 2,
    "e2e/test_api_over_http.py": 3,
    "faults/nodes/test_clock_skew.py": 2,
    "faults/services/test_cloud.py": 2,
    "faults/calls/test_garbage_collection.py": 2,
    "faults/power/test_power_loss.py": 2,
    "faults/calls/test_rotation.py": 2,
    "faults/calls/test_service.py": 2,
    "fuzz/test_openapi.py": 2,
    "maintenance/garbage_collection/test_races.py": 2,
    "maintenance/rebuild/test_run.py": 2,
}
"""Files with many slow tests. `make test` runs the first of each so many tests, and `make stress` runs the others."""


@pytest.fixture(autouse=True)
def original_handlers():
    """Put back the handlers of signals, log records and warnings: a run or a server in this process replaces them."""
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    interrupts.restore_handlers()
    for number, handler in before.items():
        signal.signal(number, handler)
    logging.captureWarnings(capture=False)
    root.handlers, root.level = handlers, level


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark some of the tests of slow files as `stress`, always the same ones."""
    seen = Counter()
    for item in items:
        if not item.path.is_relative_to(TESTS):
            continue
        name = item.path.relative_to(TESTS).as_posix()
        if seen[name] % SHARES.get(name, 1):
            item.add_marker(pytest.mark.stress)
        seen[name] += 1


def pytest_configure(config):
    """Remove the developer's AWS settings, also for the servers that fixtures start. A test sets what it needs."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(AWS_NOWHERE)


def sdk_environment(name):
    """Return the folder of a client environment that `make unit` creates. Without it, skip the test."""
    folder = project.ROOT / name
    if not (folder / ".ready").exists():
        pytest.skip(f"{name} is not installed: run `make unit`")
    return folder


@pytest.fixture(scope="session")
def sdk_2024():
    """A virtual environment with botocore 1.34.124 and awscli 1.33.6, the last that include `backupstorage`."""
    return sdk_environment(".venv-sdk-2024")


@pytest.fixture(scope="session")
def sdk_current():
    """A virtual environment with the current boto3 and aws CLI. They need the folder that `cryo sdk-model` writes."""
    return sdk_environment(".venv-sdk-current")


@pytest.fixture(scope="session")
def sdk_javascript():
    """The folder in which `node` scripts may `require("aws-sdk")`, version 2.1639.0."""
    folder = project.ROOT / "tests" / "compat" / "javascript"
    if not (folder / "node_modules" / ".ready").exists() or shutil.which("node") is None:
        pytest.skip("the JavaScript SDK is not installed: run `make unit` where node and npm are installed")
    return folder
