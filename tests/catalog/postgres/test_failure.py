"""Errors of PostgreSQL: the reason of each, and the error that callers get."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from cryostore.catalog.postgres.failure import BehindError, Reason, is_refused_for_good, reason, refusal, translate
from cryostore.core.errors import ConfigurationError, DamagedDataError, StorageFullError, StorageUnavailableError

REASONS = [
    (errors.SerializationFailure, Reason.CONFLICT),
    (errors.DeadlockDetected, Reason.CONFLICT),
    (errors.LockNotAvailable, Reason.CONFLICT),
    (errors.UniqueViolation, Reason.RULE),
    (errors.ForeignKeyViolation, Reason.RULE),
    (errors.AdminShutdown, Reason.LOST),
    (errors.IdleInTransactionSessionTimeout, Reason.LOST),
    (psycopg.OperationalError, Reason.LOST),
    (psycopg.InterfaceError, Reason.LOST),
    (errors.DiskFull, Reason.STORAGE),
    (errors.QueryCanceled, Reason.STORAGE),
    (errors.DataCorrupted, Reason.STORAGE),
    (errors.SyntaxError, Reason.OWN),
    (errors.DivisionByZero, Reason.OWN),
]


@pytest.mark.parametrize(("kind", "expected"), REASONS)
def test_the_code_decides_the_reason(kind, expected):
    assert reason(kind("said"), writing=True) is reason(kind("said"), writing=False) is expected


def test_a_standby_counts_as_a_lost_session_for_writers_only():
    error = errors.ReadOnlySqlTransaction("said")
    assert reason(error, writing=True) is Reason.LOST
    assert reason(error, writing=False) is Reason.OWN


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (errors.DataCorrupted, DamagedDataError),
        (errors.IndexCorrupted, DamagedDataError),
        (errors.DiskFull, StorageFullError),
        (errors.OutOfMemory, StorageUnavailableError),
        (errors.SerializationFailure, StorageUnavailableError),
        (psycopg.OperationalError, StorageUnavailableError),
    ],
)
def test_the_error_for_callers_says_whether_waiting_helps(kind, expected):
    told = translate(kind("what the server said"))
    assert type(told) is expected
    assert "what the server said" in told.message


@pytest.mark.parametrize("kind", [errors.UniqueViolation, errors.SyntaxError])
def test_an_error_of_the_statement_stays_as_it_is(kind):
    error = kind("said")
    assert translate(error) is error


def test_a_server_that_lacks_writes_is_explained():
    told = translate(BehindError(3))
    assert type(told) is StorageUnavailableError
    assert "lacks 3 writes" in told.message
    assert "Replicas and failover" in told.hint


@pytest.mark.parametrize(
    ("text", "for_good"),
    [
        ('FATAL:  password authentication failed for user "u"', True),
        ('FATAL:  database "x" does not exist', True),
        ("fe_sendauth: no password supplied", True),
        ("FATAL:  the database system is starting up", False),
        ("FATAL:  sorry, too many clients already", False),
        ("Connection refused", False),
    ],
)
def test_waiting_helps_unless_the_server_refused_the_role_or_database(text, for_good):
    error = psycopg.OperationalError(text)
    assert is_refused_for_good(error) is for_good
    told = refusal(error, "postgresql://u@host/db")
    assert isinstance(told, ConfigurationError) is for_good
    assert told.message.startswith("postgresql://u@host/db")


def test_the_error_for_a_role_without_rights_says_how_to_grant_them():
    told = refusal(errors.InsufficientPrivilege("permission denied"), "postgresql://u@host/db")
    assert isinstance(told, ConfigurationError)
    assert "ALTER DATABASE" in told.hint
