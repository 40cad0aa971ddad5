"""Settings and rights of the server that the tests use."""

from __future__ import annotations

import pytest

from cryostore.catalog.postgres import server_settings


def test_the_settings_of_a_usable_server(database):
    found = database.read(server_settings.find)
    assert int(found.version.partition(".")[0]) >= 15
    assert found.predicate_locks > 0
    assert 1 <= found.sessions <= found.sessions_max
    assert (found.may_write, found.may_migrate) == (1, 1)
    assert {found.is_flushed, found.has_checksums} <= {0, 1}


def test_a_role_that_may_not_change_a_table_is_noticed(database):
    """The change of rights is rolled back, because other tests use the same database."""
    found = []

    def work(transaction):
        transaction.run("REVOKE UPDATE ON vault FROM CURRENT_USER")
        found.append(server_settings.find(transaction))
        raise KeyError

    with pytest.raises(KeyError):
        database.write(work)
    assert (found[-1].may_write, found[-1].may_migrate) == (0, 1)
    assert database.read(server_settings.find).may_write == 1
