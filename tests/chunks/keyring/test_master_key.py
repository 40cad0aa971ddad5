"""Master keys and wrapped keys, beyond the conformance suite of every keyring."""

from __future__ import annotations

import pytest

from cryostore.chunks.keyring import MasterKey, unwrap, wrapped_key_id
from cryostore.core.errors import KeyUnavailableError
from support.stores.memory_keyring import MemoryKeyring


def test_ids_of_any_language_are_carried():
    key = MasterKey("schlüssel-☃", bytes(32))
    assert wrapped_key_id(key.wrap(b"", b"")) == "schlüssel-☃"


@pytest.mark.parametrize("wrapped", [b"", b"CRYW", b"CRYW\1", b"CRYW\2\1a", b"CRYE\1\1a", b"CRYW\1\1\xff"])
def test_bytes_that_are_no_wrapped_key_name_no_key(wrapped):
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
