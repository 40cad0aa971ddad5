"""Keyring URIs, and opening every kind of keyring."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from conformance.keyring import KeyringTests
from cryostore.chunks.keyring import open_keyring, parse_keyring_uri
from cryostore.core.errors import ConfigurationError
from support.stores.keyrings import BOTH, printing, write_keyring
from support.stores.memory_keyring import MemoryKeyring


class TestMemoryKeyring(KeyringTests):
    @pytest.fixture
    def ring(self):
        return MemoryKeyring()


@pytest.mark.parametrize(
    ("text", "scheme", "rest"),
    [
        ("keys.json", "file", "keys.json"),
        ("/etc/keys: old.json", "file", "/etc/keys: old.json"),
        ("./vault:keys", "file", "./vault:keys"),
        ("file:keys.json", "file", "keys.json"),
        ("file:env:NAME", "file", "env:NAME"),
        ("env:CRYOSTORE_KEYS", "env", "CRYOSTORE_KEYS"),
        ("command:fetch --key 'a b'", "command", "fetch --key 'a b'"),
    ],
)
def test_a_valid_uri_is_parsed(text, scheme, rest):
    place = parse_keyring_uri(text)
    assert (place.scheme, place.rest) == (scheme, rest)
    assert place.path == (Path(rest) if scheme == "file" else None)


@pytest.mark.parametrize(
    "text",
    ["", " ", "file:", "env:", "env:A B", "env:1A", "env:A=B", "command:", "command: ", "command:'", "command:''",
     "vault:secret/keys", "https://host/keys", "file:a\0b"],
)  # fmt: skip
def test_an_invalid_uri_is_refused(text):
    with pytest.raises(ConfigurationError, match="^--keyring"):
        parse_keyring_uri(text)


def test_an_invalid_uri_that_may_hold_a_secret_is_not_repeated():
    """An operator may enter the content of a variable instead of its name, or a secret as an argument."""
    for text in ('env:{"active": "s3cret"}', "command:fetch --password s3cret '"):
        with pytest.raises(ConfigurationError) as caught:
            parse_keyring_uri(text)
        assert "s3cret" not in caught.value.message + caught.value.hint


def test_every_kind_of_uri_is_opened(tmp_path, monkeypatch):
    path = tmp_path / "keys.json"
    write_keyring(path, BOTH)
    monkeypatch.setenv("CRYOSTORE_TEST_KEYS", base64.b64encode(BOTH.encode()).decode())
    for place in (str(path), f"file:{path}", "env:CRYOSTORE_TEST_KEYS", f"command:{' '.join(printing(path))}"):
        assert open_keyring(parse_keyring_uri(place)).document().is_same(BOTH)
