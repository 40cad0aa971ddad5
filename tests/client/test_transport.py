"""Addresses of servers: parsing, and the Host header."""

from __future__ import annotations

import pytest

from cryostore.client.transport import Endpoint
from cryostore.core.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "authority", "port"),
    [
        ("http://127.0.0.1:9440", "127.0.0.1:9440", 9440),
        ("http://localhost/", "localhost", 80),
        ("http://localhost:80", "localhost", 80),
        ("https://backup.example", "backup.example", 443),
        ("https://backup.example:80", "backup.example:80", 80),
        ("HTTP://Backup.Example:1", "backup.example:1", 1),
        ("http://[::1]:9440", "[::1]:9440", 9440),
    ],
)
def test_an_endpoint_is_parsed(url, authority, port):
    endpoint = Endpoint.parse(url)
    assert (endpoint.authority, endpoint.port) == (authority, port)
    assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:9440",
        "ftp://localhost",
        "http://",
        "http://:9440",
        "http://localhost:port",
        "http://localhost:99999",
        "http://localhost/prefix",
        "http://localhost?q",
        "http://localhost#f",
        "http://user:hunter2@localhost",
    ],
)
def test_the_error_for_an_invalid_endpoint_does_not_repeat_it(url):
    with pytest.raises(ConfigurationError) as raised:
        Endpoint.parse(url)
    assert "hunter2" not in f"{raised.value} {raised.value.hint}"
