"""Conformance suite of every Keyring. A subclass provides `ring`, whose keys the suite can reach."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.chunks.keyring import KeyringSource, MasterKey, unwrap, wrapped_key_id
from cryostore.core.errors import KeyUnavailableError


class KeyringTests:
    """Subclass, name it Test..., and give a fixture `ring`: a keyring with at least one key."""

    def test_the_active_key_is_found_by_its_id(self, ring):
        key = ring.active()
        wrapped = key.wrap(b"data key", b"vault 1")
        assert ring.key(key.key_id).unwrap(wrapped, b"vault 1") == b"data key"

    def test_the_keyring_unwraps_with_the_key_that_wrapped(self, ring):
        wrapped = ring.active().wrap(b"data key", b"vault 1")
        assert wrapped_key_id(wrapped) == ring.active().key_id
        assert unwrap(ring, wrapped, b"vault 1") == b"data key"

    def test_unknown_keys_are_unavailable(self, ring):
        for key_id in ("", "nobody's", ring.active().key_id + "x"):
            with pytest.raises(KeyUnavailableError):
                ring.key(key_id)

    def test_bytes_that_a_foreign_key_wrapped_do_not_open(self, ring):
        """The foreign key has another id, or the same id."""
        for key_id in ("elsewhere", ring.active().key_id):
            wrapped = MasterKey(key_id, bytes([7]) * 32).wrap(b"data key", b"vault 1")
            with pytest.raises(KeyUnavailableError):
                unwrap(ring, wrapped, b"vault 1")

    def test_only_the_same_context_unwraps(self, ring):
        @given(plain=st.binary(max_size=64), context=st.binary(max_size=20), other=st.binary(max_size=20))
        def check(plain, context, other):
            wrapped = ring.active().wrap(plain, context)
            assert unwrap(ring, wrapped, context) == plain
            assert len(plain) < 8 or plain not in wrapped
            if other != context:
                with pytest.raises(KeyUnavailableError):
                    unwrap(ring, wrapped, other)

        check()

    def test_wrapping_twice_gives_different_bytes(self, ring):
        assert ring.active().wrap(b"x", b"") != ring.active().wrap(b"x", b"")

    def test_every_changed_or_missing_byte_is_noticed(self, ring):
        wrapped = ring.active().wrap(b"data key", b"vault 1")
        for position in range(len(wrapped)):
            changed = bytearray(wrapped)
            changed[position] ^= 0x01
            for bad in (bytes(changed), wrapped[:position]):
                with pytest.raises(KeyUnavailableError):
                    unwrap(ring, bad, b"vault 1")

    def test_many_threads_may_use_a_keyring(self, ring):
        """Some of them request unknown keys."""
        wrapped, found = ring.active().wrap(b"data key", b"vault 1"), []

        def use():
            for _ in range(20):
                with pytest.raises(KeyUnavailableError):
                    ring.key("nobody's")
                found.append(unwrap(ring, wrapped, b"vault 1"))

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [b"data key"] * 80

    def test_no_text_contains_a_secret(self, ring):
        """The texts are its repr, errors, the name of its source, and the repr of its attributes."""
        secret = ring.active().secret
        with pytest.raises(KeyUnavailableError) as caught:
            ring.key("nobody's")
        place = ring.place if isinstance(ring, KeyringSource) else ""
        shown = [repr(ring), repr(vars(ring)), repr(ring.active()), place, repr(caught.value), caught.value.hint]
        for text in shown:
            assert repr(secret)[2:10] not in text
            assert secret.hex()[:8] not in text


class KeyringSourceTests(KeyringTests):
    """For keyrings that read a document, which the fixture `document` provides."""

    def test_a_keyring_returns_its_whole_document(self, ring, document):
        assert isinstance(ring, KeyringSource)
        assert ring.document().is_same(document)

    def test_a_keyring_has_every_key_of_the_document(self, ring, document):
        assert len(document.keys) > 1
        for key_id, key in document.keys.items():
            assert ring.key(key_id).is_same(key)
        assert ring.active().is_same(document.active)

    def test_a_keyring_names_its_source(self, ring):
        assert ring.place
