"""Key files: golden files that later versions must read, and malformed files that are refused."""

from __future__ import annotations

import pytest

from cryostore.agent.encryption import key_file
from cryostore.agent.encryption.agent_key import AgentKey
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from support.archives.sealed_samples import KEY, PASSPHRASE, golden


def no_passphrase():
    raise AssertionError("no passphrase is needed")


def test_golden_key_files():
    assert key_file.encode(KEY) == golden("agent-key.json")
    assert key_file.encode_public(KEY) == golden("agent-key-public.json")
    assert key_file.decode(golden("agent-key.json"), no_passphrase).seed == KEY.seed
    assert key_file.decode(golden("agent-key-locked.json"), lambda: PASSPHRASE).seed == KEY.seed
    public = key_file.decode(golden("agent-key-public.json"), no_passphrase)
    assert not isinstance(public, AgentKey)
    assert public.fingerprint == KEY.fingerprint


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"format":"cryostore agent key 2","public":"AAAA"}',
        golden("agent-key.json").replace(b"AAECAw", b"BBECAw"),
        golden("agent-key.json")[:-30],
        golden("agent-key-locked.json").replace(b'"iterations": 1', b'"iterations": 1000000'),
        b" " * 70_000,
    ],
    ids=["empty", "no members", "a list", "no text", "later", "another secret", "cut", "costs", "long"],
)
def test_malformed_key_files_are_refused(data):
    with pytest.raises(ConfigurationError) as raised:
        key_file.decode(data, lambda: PASSPHRASE, "FILE")
    assert raised.value.message == "FILE is not a key file of the agent"
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_a_wrong_passphrase_is_refused():
    with pytest.raises(KeyUnavailableError, match="passphrase does not open"):
        key_file.decode(golden("agent-key-locked.json"), lambda: "another")
