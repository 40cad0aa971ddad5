"""Checks of the settings and permissions of a catalog's server. test_shared.py runs them on a real server."""

from __future__ import annotations

import pytest

from cryostore.catalog.postgres.server import ServerSettings
from cryostore.maintenance.diagnosis import ERROR, OK, WARNING, catalog

GOOD = ServerSettings(
    version="17.2",
    is_flushed=1,
    predicate_locks=256,
    has_checksums=1,
    sessions=80,
    sessions_max=100,
    may_write=1,
    may_migrate=1,
)


def test_a_server_with_the_recommended_settings():
    (found,) = catalog._settings(GOOD)
    assert (found.level, found.advice) == (OK, "")
    (found,) = catalog._settings(GOOD._replace(has_checksums=0))
    assert (found.level, "pg_checksums" in found.advice) == (OK, True)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"is_flushed": 0}, "fsync"),
        ({"predicate_locks": 255}, "max_pred_locks_per_transaction is 255"),
        ({"sessions": 81}, "81 of 100 connections"),
    ],
)
def test_a_setting_that_differs_from_the_recommendation(setting, words):
    (found,) = catalog._settings(GOOD._replace(**setting))
    assert (found.level, words in found.found) == (WARNING, True)


@pytest.mark.parametrize(
    ("rights", "level"), [({}, OK), ({"may_migrate": 0}, WARNING), ({"may_write": 0, "may_migrate": 0}, ERROR)]
)
def test_the_permissions_of_the_role(rights, level):
    (found,) = catalog._rights(GOOD._replace(**rights))
    assert found.level == level
