"""URLs of catalogs: what is refused, and that a password is never shown."""

from __future__ import annotations

import psycopg
import pytest

from cryostore.catalog.postgres.server_url import ServerUrl
from cryostore.core.errors import ConfigurationError
from cryostore.service.opening.address import without_secrets


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
def test_a_url_that_cannot_be_read_is_not_repeated(url):
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
def test_several_hosts_are_shown_as_they_are_named(hosts, shown):
    assert ServerUrl(f"postgresql://u:geheim@{hosts}/db").shown == f"postgresql://u@{shown}/db"
    assert without_secrets(f"postgresql://u:geheim@{hosts}/db?password=geheim") == f"postgresql://u@{shown}/db"


@pytest.mark.parametrize("wanted", ["any", "standby", "prefer-standby", "read-only"])
def test_a_replica_is_no_catalog(wanted):
    with pytest.raises(ConfigurationError, match="replica"):
        ServerUrl(f"postgresql://u@a,b/db?target_session_attrs={wanted}")
    ServerUrl("postgresql://u@a,b/db?target_session_attrs=primary")


def test_the_certificates_of_the_system_need_a_libpq_that_knows_them(monkeypatch):
    """The bundled one does; an older one would look for a file named `system`."""
    url = "postgresql://cryostore@catalog.example/cryostore?sslmode=verify-full&sslrootcert=system"
    assert ServerUrl(url).parameters["sslrootcert"] == "system"
    monkeypatch.setattr(psycopg.pq, "version", lambda: 150_004)
    with pytest.raises(ConfigurationError, match="needs libpq 16 or later, and psycopg uses libpq 15 here"):
        ServerUrl(url)
