"""Data keys, derived ciphers, masks and salts."""

from __future__ import annotations

import hmac
import threading

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from cryostore.chunks import cipher
from cryostore.chunks.cipher import DataKey, EnvelopeCipher, Salts, open_small, seal_small
from cryostore.core.errors import DamagedDataError

SECRET = bytes(range(32))


def test_no_repr_shows_a_secret():
    key = DataKey(b"k" * 16, SECRET)
    for text in (repr(key), str(key), f"{key}"):
        assert SECRET.hex() not in text
        assert repr(SECRET)[2:20] not in text
    assert "6b6b" in repr(key)


@pytest.mark.parametrize(("key_id", "secret"), [(15, 32), (17, 32), (16, 16), (16, 33), (0, 0)])
def test_keys_have_exact_sizes(key_id, secret):
    with pytest.raises(ValueError, match="16 bytes"):
        DataKey(bytes(key_id), bytes(secret))


def test_generated_keys_differ():
    first, second = DataKey.generate(b"k" * 16), DataKey.generate(b"k" * 16)
    assert first.secret != second.secret
    assert len(first.secret) == 32


def test_the_derivation_is_hmac_sha256_by_label_and_salt():
    """It follows the documentation, computed with primitives of the library only."""
    salt, nonce = b"s" * 16, b"n" * 12
    sealed = bytearray(5 + 16)
    EnvelopeCipher(SECRET, salt).seal_into(nonce, b"plain", b"associated", sealed)
    derived = hmac.new(SECRET, b"cryostore envelope 1" + salt, "sha256").digest()
    assert AESGCM(derived).decrypt(nonce, bytes(sealed), b"associated") == b"plain"


@given(digest=st.binary(min_size=32, max_size=32), nonce=st.binary(min_size=12, max_size=12))
def test_a_mask_is_its_own_inverse_and_depends_on_key_salt_and_nonce(digest, nonce):
    masks = [
        EnvelopeCipher(secret, salt).mask(digest, each)
        for secret, salt, each in [
            (SECRET, b"s" * 16, nonce), (bytes(32), b"s" * 16, nonce), (SECRET, b"t" * 16, nonce),
            (SECRET, b"s" * 16, bytes(byte ^ 1 for byte in nonce)),
        ]
    ]  # fmt: skip
    assert len({digest, *masks}) == 5
    assert EnvelopeCipher(SECRET, b"s" * 16).mask(masks[0], nonce) == digest


def test_a_data_key_caches_few_ciphers():
    key = DataKey(b"k" * 16, SECRET)
    assert key.cipher(b"a" * 16) is key.cipher(b"a" * 16)
    for number in range(1000):
        key.cipher(number.to_bytes(16, "big"))
    assert key.cipher.cache_info().currsize == cipher.CIPHERS_KEPT


@pytest.mark.parametrize("sealed", [b"", b"x" * 15, b"x" * 16, b"x" * 100])
def test_changed_bytes_do_not_open(sealed):
    with pytest.raises(DamagedDataError):
        EnvelopeCipher(SECRET, b"s" * 16).open(b"n" * 12, sealed, b"")
    with pytest.raises(DamagedDataError):
        open_small(SECRET, sealed, b"")


def test_small_seals_open_only_with_the_same_associated_data():
    sealed = seal_small(SECRET, b"plain", b"one")
    assert open_small(SECRET, sealed, b"one") == b"plain"
    with pytest.raises(DamagedDataError):
        open_small(SECRET, sealed, b"two")


def test_salts_change_after_a_number_of_uses(monkeypatch):
    monkeypatch.setattr(cipher, "SALT_USES_MAX", 4)
    salts = Salts()
    drawn = [salts.current() for _ in range(12)]
    assert [drawn.count(salt) for salt in dict.fromkeys(drawn)] == [4, 4, 4]


def test_many_threads_do_not_use_a_salt_too_often(monkeypatch):
    monkeypatch.setattr(cipher, "SALT_USES_MAX", 100)
    salts, drawn = Salts(), []
    threads = [threading.Thread(target=lambda: drawn.extend(salts.current() for _ in range(500))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 2000
    assert max(drawn.count(salt) for salt in set(drawn)) <= 100


def test_two_writers_never_share_a_salt():
    assert Salts().current() != Salts().current()
