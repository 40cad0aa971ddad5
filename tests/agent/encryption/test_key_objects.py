"""Key objects: golden files, the owner tag, and objects that are refused."""

from __future__ import annotations

import pytest

from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.encryption.key_objects import OBJECT_BYTES, unwrap, wrap
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.core.errors import KeyUnavailableError
from support.archives.sealed_samples import ARCHIVE_KEY, KEY, golden_hex


def test_golden_key_objects():
    for name, owned in (("agent-key-object-owned.hex", True), ("agent-key-object.hex", False)):
        found, is_owned = unwrap(golden_hex(name), KEY)
        assert (found.key_id, found.secret, found.id_secret) == (
            ARCHIVE_KEY.key_id,
            ARCHIVE_KEY.secret,
            ARCHIVE_KEY.id_secret,
        )
        assert is_owned is owned


def test_only_its_recipient_opens_a_key_object():
    data = wrap(ARCHIVE_KEY, PublicKey(KEY.public))
    assert len(data) == OBJECT_BYTES
    with pytest.raises(KeyUnavailableError):
        unwrap(data, AgentKey.generate())
    for at in (0, 4, 10, 30, 100, 140):
        wrong = bytearray(data)
        wrong[at] ^= 1
        with pytest.raises((ArchiveDamagedError, KeyUnavailableError)):
            unwrap(bytes(wrong), KEY)
    with pytest.raises(ArchiveDamagedError):
        unwrap(data[:-1], KEY)


def test_only_the_whole_key_makes_an_owner_tag():
    """Neither the public part nor a forged tag is accepted."""
    data = wrap(ARCHIVE_KEY, PublicKey(KEY.public))
    assert unwrap(data, KEY)[1] is False
    with pytest.raises(ArchiveDamagedError, match="tag"):
        unwrap(data[:-32] + bytes(range(32)), KEY)
    assert unwrap(wrap(ARCHIVE_KEY, KEY), KEY)[1] is True
