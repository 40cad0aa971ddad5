"""Master keys beyond the contract of every keyring, and the grammar of the places where keyrings are."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from conformance.keyring import KeyringTests
from cryostore.chunks.keyring import MasterKey, open_keyring, parse_keyring_uri, unwrap, wrapped_key_id
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from support.keyrings import BOTH, printing, write_keyring
from support.memory_keyring import MemoryKeyring


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
def test_a_place(text, scheme, rest):
    place = parse_keyring_uri(text)
    assert (place.scheme, place.rest) == (scheme, rest)
    assert place.path == (Path(rest) if scheme == "file" else None)


@pytest.mark.parametrize(
    "text",
    ["", " ", "file:", "env:", "env:A B", "env:1A", "env:A=B", "command:", "command: ", "command:'", "command:''",
     "vault:secret/keys", "https://host/keys", "file:a\0b"],
)  # fmt: skip
def test_no_place(text):
    with pytest.raises(ConfigurationError, match="^--keyring"):
        parse_keyring_uri(text)


def test_what_is_no_place_is_not_repeated_if_it_may_be_a_secret():
    """Somebody may give the content of a variable in place of its name, or a secret as a program's argument."""
    for text in ('env:{"active": "s3cret"}', "command:fetch --password s3cret '"):
        with pytest.raises(ConfigurationError) as caught:
            parse_keyring_uri(text)
        assert "s3cret" not in caught.value.message + caught.value.hint


def test_every_kind_of_place_is_opened(tmp_path, monkeypatch):
    path = tmp_path / "keys.json"
    write_keyring(path, BOTH)
    monkeypatch.setenv("CRYOSTORE_TEST_KEYS", base64.b64encode(BOTH.encode()).decode())
    for place in (str(path), f"file:{path}", "env:CRYOSTORE_TEST_KEYS", f"command:{' '.join(printing(path))}"):
        assert open_keyring(parse_keyring_uri(place)).document().is_same(BOTH)


def test_ids_of_any_language_are_carried():
    key = MasterKey("schlüssel-☃", bytes(32))
    assert wrapped_key_id(key.wrap(b"", b"")) == "schlüssel-☃"


@pytest.mark.parametrize("wrapped", [b"", b"CRYW", b"CRYW\1", b"CRYW\2\1a", b"CRYE\1\1a", b"CRYW\1\1\xff"])
def test_what_is_no_wrapped_key_names_no_key(wrapped):
    with pytest.raises(KeyUnavailableError):
        wrapped_key_id(wrapped)


def test_a_wrapped_key_cut_in_its_name_opens_with_no_key():
    with pytest.raises(KeyUnavailableError):
        unwrap(MemoryKeyring(), b"CRYW\1\x09in mem", b"")
    with pytest.raises(KeyUnavailableError):
        unwrap(MemoryKeyring(), b"CRYW\1\xffin memory", b"")


@pytest.mark.parametrize(("key_id", "secret"), [("", 32), ("x" * 256, 32), ("a", 31), ("a", 33)])
def test_master_keys_have_an_id_and_an_exact_size(key_id, secret):
    with pytest.raises(ValueError, match="master key"):
        MasterKey(key_id, bytes(secret))


def test_new_master_keys_differ_and_are_the_same_only_as_themselves():
    one, two = MasterKey.generate("a"), MasterKey.generate("a")
    assert one.is_same(MasterKey("a", one.secret))
    assert not one.is_same(two)
    assert not one.is_same(MasterKey("b", one.secret))
