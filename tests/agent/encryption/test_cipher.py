"""Cryptographic primitives: round trips, and wrong keys, contexts and bytes that they refuse."""

from __future__ import annotations

import pytest

from cryostore.agent.encryption.cipher import (
    NONCE_BYTES,
    SECRET_BYTES,
    Stretching,
    derive,
    is_same,
    keyed_digest,
    public_of,
    seal,
    seal_to,
    stretched,
    unseal,
    unseal_with,
)
from cryostore.core.errors import ConfigurationError, DamagedDataError

SECRET = bytes(range(32))
NONCE = bytes(NONCE_BYTES)


def test_secrets_of_different_labels_differ():
    derived = {derive(SECRET, label) for label in (b"a", b"b", b"ab")}
    assert len(derived) == 3
    assert SECRET not in derived
    assert {len(each) for each in derived} == {SECRET_BYTES}
    assert len(derive(SECRET, b"a", 80)) == 80


def test_a_keyed_digest_depends_on_secret_and_data():
    assert keyed_digest(SECRET, b"data") == keyed_digest(SECRET, bytearray(b"data"))
    assert len({keyed_digest(SECRET, b"data"), keyed_digest(SECRET, b"date"), keyed_digest(bytes(32), b"data")}) == 3
    assert is_same(keyed_digest(SECRET, b"data"), keyed_digest(SECRET, b"data"))
    assert not is_same(b"a", b"b")


@pytest.mark.parametrize("plain", [b"", b"short", b"long" * 50_000])
def test_unseal_returns_the_sealed_bytes(plain):
    assert unseal(SECRET, NONCE, seal(SECRET, NONCE, plain, b"context"), b"context") == plain


@pytest.mark.parametrize(
    ("secret", "nonce", "sealed", "context"),
    [
        (bytes(32), NONCE, seal(SECRET, NONCE, b"plain", b"context"), b"context"),
        (SECRET, bytes(11) + b"1", seal(SECRET, NONCE, b"plain", b"context"), b"context"),
        (SECRET, NONCE, seal(SECRET, NONCE, b"plain", b"context")[:-1], b"context"),
        (SECRET, NONCE, b"", b"context"),
        (SECRET, NONCE, seal(SECRET, NONCE, b"plain", b"context"), b"another"),
    ],
    ids=["secret", "nonce", "cut", "empty", "context"],
)
def test_a_wrong_key_nonce_context_or_byte_is_damage(secret, nonce, sealed, context):
    with pytest.raises(DamagedDataError):
        unseal(secret, nonce, sealed, context)


def test_only_the_private_part_opens_what_is_sealed_to_a_public_key():
    sealed = seal_to(public_of(SECRET), b"plain", b"info")
    assert unseal_with(SECRET, sealed, b"info") == b"plain"
    assert sealed != seal_to(public_of(SECRET), b"plain", b"info")
    for private, data, info in (
        (bytes(31) + b"1", sealed, b"info"),
        (SECRET, sealed[:-1], b"info"),
        (SECRET, sealed, b""),
    ):
        with pytest.raises(DamagedDataError):
            unseal_with(private, data, info)


def test_a_public_key_that_is_not_a_point_is_refused():
    with pytest.raises(ConfigurationError, match="not a valid public key"):
        seal_to(b"short", b"plain", b"info")


def test_a_passphrase_gives_the_same_key_with_the_same_costs():
    cheap = Stretching(bytes(16), 1, 1, 64)
    assert cheap.work == 64
    assert stretched(b"passphrase", cheap) == stretched(b"passphrase", cheap)
    assert stretched(b"passphrase", cheap) != stretched(b"passphrase", cheap._replace(salt=bytes(range(16))))
    assert stretched(b"passphrase", cheap) != stretched(b"passphrase", cheap._replace(iterations=2))
