"""Internal failures: the API error of the caller, and the log lines of the operator."""

from __future__ import annotations

import errno
import os

import pytest

from cryostore.core.errors import (
    DamagedDataError,
    KeyMissingError,
    KeyUnavailableError,
    StorageFullError,
    StorageUnavailableError,
)
from cryostore.model.errors import ThrottlingException
from cryostore.server.monitoring.failure import ADVICE, Failures, api_error, kind_of
from cryostore.server.monitoring.metrics import FAILURES, Slot, private_meter


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (StorageUnavailableError("secret"), "ServiceUnavailableException"),
        (StorageFullError("secret"), "ServiceUnavailableException"),
        (KeyUnavailableError("secret"), "KMSInvalidKeyUsageException"),
        (DamagedDataError("secret"), "DamagedDataException"),
        (KeyMissingError("id"), "ServiceUnavailableException"),
        (RuntimeError("secret"), "ServiceInternalException"),
    ],
)
def test_the_caller_gets_no_details(error, name):
    answer = api_error(error)
    assert type(answer).__name__ == name
    assert "secret" not in answer.message


def test_an_error_of_the_api_is_returned_unchanged():
    error = ThrottlingException("slowly")
    assert api_error(error) is error


# --- failures of the storage ------------------------------------------------------------------------------------------


def caused(kind, number, *between):
    """An error of ours caused by a system error, with further errors of ours in between."""
    error = kind("blob packs/x: no")
    error.__cause__ = OSError(number, os.strerror(number))
    for one in between:
        one.__cause__, error = error, one
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StorageFullError("disk full"), "full"),
        (caused(StorageUnavailableError, errno.EDQUOT), "full"),
        (caused(StorageUnavailableError, errno.EROFS), "read-only"),
        (caused(StorageUnavailableError, errno.EIO), "input/output"),
        (caused(StorageUnavailableError, errno.EMFILE), "open files"),
        (caused(StorageUnavailableError, errno.ENFILE, StorageUnavailableError("again")), "open files"),
        (caused(StorageUnavailableError, errno.EACCES), "permission"),
        (caused(StorageUnavailableError, errno.ENXIO), "input/output"),
        (StorageUnavailableError("closed"), "unavailable"),
        (StorageUnavailableError("away", part="catalog"), "catalog"),
        (StorageUnavailableError("away", part="blobs"), "blobs"),
        (DamagedDataError("pack x at 5, 7 bytes: no"), "damaged"),
        (KeyUnavailableError("no key k"), "key"),
    ],
)
def test_kinds(error, kind):
    assert kind_of(error) == kind
    assert kind in FAILURES
    assert ADVICE[kind]


class Lines:
    """Stands for a log."""

    def __init__(self):
        self.lines = []
        self.failures = []

    def write(self, level, event, **fields):
        self.lines.append({"level": level, "event": event} | {k: v for k, v in fields.items() if v is not None})

    def failure(self, event, error, **fields):
        self.failures.append((event, error, fields))


@pytest.fixture
def failures():
    """Failures with a log that the test can read, and a clock in `seconds`."""
    failures = Failures(Lines(), private_meter(), now=lambda: failures.seconds)
    failures.seconds = 1000.0
    return failures


def counted(failures, kind):
    return Slot(failures.meter._numbers).value(f"failure {kind}")


def test_a_line_has_cause_place_and_advice(failures):
    failures.failure("failure", caused(StorageUnavailableError, errno.EIO), operation="GetChunk", request_id="r")
    (line,) = failures._log.lines
    assert line == {
        "level": "error",
        "event": "storage failure",
        "kind": "input/output",
        "message": "blob packs/x: no",
        "cause": "Input/output error",
        "hint": ADVICE["input/output"],
        "operation": "GetChunk",
        "request_id": "r",
    }


def test_a_missing_key_gets_few_lines_with_its_id(failures):
    for key_id in ("one", "two") * 500:
        failures.failure("failure", KeyMissingError(key_id, hint="put it there"), operation="GetChunk")
    assert [line["key_id"] for line in failures._log.lines] == ["one", "two"]
    assert failures._log.lines[0]["event"] == "key not available"
    assert failures._log.lines[0]["hint"] == "put it there"
    assert failures._log.failures == []
    assert counted(failures, "key") == 1000


def test_a_flood_is_counted_and_gets_few_lines(failures):
    for _ in range(1000):
        failures.failure("failure", StorageFullError("disk full"))
        failures.seconds += 0.1
    lines = failures._log.lines
    assert 10 <= len(lines) <= 11
    assert sum(line.get("held_back", 0) for line in lines) + len(lines) > 900
    assert "held_back" not in lines[0]
    assert lines[1]["held_back"] == 99
    assert counted(failures, "full") == 1000


def test_damage_that_is_found_a_thousand_times_gets_few_lines_with_a_place(failures):
    """Known damage is an expected failure: no traceback, and no flood of lines."""
    for number in range(1000):
        failures.failure("failure", DamagedDataError(f"pack x at {number}, 7 bytes: no"), operation="GetChunk")
        failures.seconds += 0.01
    (line,) = failures._log.lines
    assert (line["event"], line["message"], line["operation"]) == (
        "damaged data",
        "pack x at 0, 7 bytes: no",
        "GetChunk",
    )
    assert failures._log.failures == []
    assert counted(failures, "damaged") == 1000


def test_one_kind_of_failure_does_not_suppress_another(failures):
    failures.failure("failure", StorageFullError("disk full"))
    failures.failure("failure", caused(StorageUnavailableError, errno.EROFS))
    assert [line["kind"] for line in failures._log.lines] == ["full", "read-only"]


def test_each_error_of_a_group_is_logged_by_its_kind(failures):
    defect = RuntimeError("deep")
    group = ExceptionGroup("tasks failed", [StorageFullError("a"), ExceptionGroup("more", [defect])])
    failures.failure("maintenance failed", group)
    assert [line["kind"] for line in failures._log.lines] == ["full"]
    assert failures._log.failures == [("maintenance failed", defect, {})]
