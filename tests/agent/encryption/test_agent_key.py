"""Agent keys: the whole key opens what its public part seals, and only the whole key signs."""

from __future__ import annotations

import pytest

from cryostore.agent.encryption.agent_key import AgentKey, PublicKey, require_whole_key
from cryostore.core.errors import DamagedDataError, KeyUnavailableError
from support.archives.sealed_samples import KEY


def test_only_the_whole_key_opens_what_the_public_part_seals():
    sealed = PublicKey(KEY.public).seal_for(b"plain", b"info")
    assert KEY.open_sealed(sealed, b"info") == b"plain"
    with pytest.raises(DamagedDataError):
        KEY.open_sealed(sealed, b"other info")
    with pytest.raises(DamagedDataError):
        AgentKey.generate().open_sealed(sealed, b"info")


def test_both_parts_have_one_fingerprint():
    assert PublicKey(KEY.public).fingerprint == KEY.fingerprint
    assert AgentKey.generate().fingerprint != KEY.fingerprint


def test_a_repr_shows_no_secret():
    assert repr(KEY) == f"AgentKey({KEY.fingerprint})"
    assert repr(PublicKey(KEY.public)) == f"PublicKey({KEY.fingerprint})"


def test_equal_texts_have_equal_opaque_names():
    assert KEY.opaque_name("host:/path") == KEY.opaque_name("host:/path")
    assert "path" not in KEY.opaque_name("host:/path")
    assert len({KEY.opaque_name("a"), KEY.opaque_name("b"), AgentKey.generate().opaque_name("a")}) == 3


def test_owner_tags_depend_on_key_and_data():
    assert KEY.owner_tag(b"data") == KEY.owner_tag(b"data")
    assert len({KEY.owner_tag(b"data"), KEY.owner_tag(b"date"), AgentKey.generate().owner_tag(b"data")}) == 3


def test_a_public_part_is_not_a_whole_key():
    assert require_whole_key(KEY) is KEY
    with pytest.raises(KeyUnavailableError, match="cannot read them"):
        require_whole_key(PublicKey(KEY.public))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_of_another_length_are_refused(length):
    with pytest.raises(ValueError, match="32 bytes"):
        AgentKey(bytes(length))
    with pytest.raises(ValueError, match="32 bytes"):
        PublicKey(bytes(length))
