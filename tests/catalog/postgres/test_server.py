"""The PostgreSQL server: URLs are checked and shown without a password, settings are found, and its clock is shared."""

from __future__ import annotations

import itertools

import psycopg
import pytest

from cryostore.catalog.postgres import engine as postgres
from cryostore.catalog.postgres import server
from cryostore.catalog.postgres.server import DatabaseClock, ServerUrl, find_settings
from cryostore.core.errors import ConfigurationError
from cryostore.service.opening.shared_store import without_secrets


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:geh@eim@host/db",
        "postgresql://u:geh/eim@host/db",
        "postgresql://u:1/geheim@host/db",
        "postgresql://u:geheim@host:geheim/db",
        "postgresql://u:geheim@host/db?nonsense=geheim",
    ],
)
def test_the_error_for_an_invalid_url_does_not_repeat_it(url):
    with pytest.raises(ConfigurationError) as refused:
        ServerUrl(url)
    assert "eim" not in refused.value.message + refused.value.hint
    assert "%40" in refused.value.hint


def test_a_url_is_shown_without_its_password():
    url = ServerUrl("postgresql://u:geheim@a.example:1,b.example:2/db?sslmode=require")
    assert url.shown == "postgresql://u@a.example:1,b.example:2/db"


@pytest.mark.parametrize(
    ("hosts", "shown"),
    [
        ("a,b,c", "a,b,c"),
        ("[::1]", "[::1]"),
        ("[2001:db8::1]:5433,b,[2001:db8::2]", "[2001:db8::1]:5433,b,[2001:db8::2]"),
        ("a:1,[::1]:2", "a:1,[::1]:2"),
    ],
)
def test_several_hosts_are_shown_in_the_notation_of_the_url(hosts, shown):
    assert ServerUrl(f"postgresql://u:geheim@{hosts}/db").shown == f"postgresql://u@{shown}/db"
    assert without_secrets(f"postgresql://u:geheim@{hosts}/db?password=geheim") == f"postgresql://u@{shown}/db"


@pytest.mark.parametrize("wanted", ["any", "standby", "prefer-standby", "read-only"])
def test_a_url_that_accepts_replicas_is_refused(wanted):
    with pytest.raises(ConfigurationError, match="replica"):
        ServerUrl(f"postgresql://u@a,b/db?target_session_attrs={wanted}")
    ServerUrl("postgresql://u@a,b/db?target_session_attrs=primary")


def test_system_certificates_need_a_recent_libpq(monkeypatch):
    """The bundled libpq supports them; an older one would look for a file named `system`."""
    url = "postgresql://cryostore@catalog.example/cryostore?sslmode=verify-full&sslrootcert=system"
    assert ServerUrl(url).parameters["sslrootcert"] == "system"
    monkeypatch.setattr(psycopg.pq, "version", lambda: 150_004)
    with pytest.raises(ConfigurationError, match="needs libpq 16 or later, and psycopg uses libpq 15 here"):
        ServerUrl(url)


def test_the_settings_of_a_usable_server(database):
    found = database.read(find_settings)
    assert int(found.version.partition(".")[0]) >= 15
    assert found.predicate_locks > 0
    assert 1 <= found.sessions <= found.sessions_max
    assert (found.may_write, found.may_migrate) == (1, 1)
    assert {found.is_flushed, found.has_checksums} <= {0, 1}


def test_a_role_without_the_right_to_change_a_table_is_found(database):
    """The change of rights is rolled back, because other tests use the same database."""
    found = []

    def work(transaction):
        transaction.run("REVOKE UPDATE ON vault FROM CURRENT_USER")
        found.append(find_settings(transaction))
        raise KeyError

    with pytest.raises(KeyError):
        database.write(work)
    assert (found[-1].may_write, found[-1].may_migrate) == (0, 1)
    assert database.read(find_settings).may_write == 1


def test_the_clock_has_the_time_of_the_database(database):
    (before,) = database.read(lambda t: t.row(postgres.TIME))
    now = database.now_ms()
    (after,) = database.read(lambda t: t.row(postgres.TIME))
    assert before - 1000 <= now <= after + 1000


def test_time_never_goes_back(monkeypatch):
    """It stands still while the database's clock catches up, as after a failover, and no longer."""
    elapsed = itertools.count(100)
    monkeypatch.setattr(server, "_elapsed_seconds", lambda: next(elapsed))
    clock = DatabaseClock()
    assert clock.is_due
    clock.end(clock.begin(), 50_000)
    assert [clock(), clock()] == [51_500, 52_500]
    clock.end(clock.begin(), 50_000)
    assert [clock(), clock(), clock()] == [52_500, 52_500, 53_500]
