"""Configuration of a server: its checks, and how it is passed to a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import Limits
from cryostore.options import configuration
from cryostore.options.configuration import (
    Configuration,
    ConnectionSettings,
    from_json,
    is_loopback,
    parse_listen,
    to_json,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:8734", ("127.0.0.1", 8734)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("backup.example.org:443", ("backup.example.org", 443)),
    ],
)
def test_a_valid_address(text, found):
    assert parse_listen(text) == found


@pytest.mark.parametrize("text", ["", "8734", ":8734", "127.0.0.1", "127.0.0.1:", "::1:80", "h:65536", "h:-1", "h:٣"])
def test_an_invalid_address(text):
    with pytest.raises(ConfigurationError):
        parse_listen(text)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
    ],
)
def test_only_a_loopback_address_needs_no_tls(host, local):
    assert is_loopback(host) is local
    if local:
        Configuration(host=host)
    else:
        with pytest.raises(ConfigurationError) as refused:
            Configuration(host=host)
        assert "--insecure-listen" in refused.value.hint
        Configuration(host=host, insecure_listen=True)


def test_tls_needs_both_files_and_allows_any_address(tmp_path):
    cert, key = tmp_path / "cert", tmp_path / "key"
    with pytest.raises(ConfigurationError, match="belong together"):
        Configuration(tls_cert=cert)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Configuration(tls_cert=cert, tls_key=key)
    cert.touch()
    key.touch(mode=0o644)
    with pytest.raises(ConfigurationError, match="0644"):
        Configuration(tls_cert=cert, tls_key=key)
    key.chmod(0o600)
    assert Configuration(host="0.0.0.0", tls_cert=cert, tls_key=key).scheme == "https"
    assert Configuration().scheme == "http"


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"workers": 65}, {"port": 65536}, {"log_level": "loud"}, {"region": ""}, {"threads": 0}],
)
def test_impossible_values_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        Configuration(**wrong)


@pytest.mark.parametrize(("processors", "workers"), [(1, 1), (2, 2), (64, 2)])
def test_the_default_number_of_workers(monkeypatch, processors, workers):
    monkeypatch.setattr(configuration.os, "sched_getaffinity", lambda _: set(range(processors)))
    assert Configuration().workers == workers


def test_a_configuration_is_the_same_in_a_worker():
    configuration = Configuration(
        data_dir=Path("/data"),
        host="::1",
        port=1,
        workers=3,
        region="local-1",
        limits=Limits(chunk_bytes_max=1000),
        connection=ConnectionSettings(connections_max=7, body_idle_seconds_max=0.5),
    )
    line = to_json(configuration)
    assert b"\n" not in line
    assert from_json(line) == configuration
