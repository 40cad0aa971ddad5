"""A call with a key: it passes operations on, and hides the names of resources."""

from __future__ import annotations

import pytest

from cryostore.agent.encryption.agent_key import PublicKey
from cryostore.agent.encryption.keyed_call import KeyedCall, key_of, resource_for
from cryostore.core.errors import ConfigurationError
from support.archives.sealed_samples import KEY


class Store:
    def __init__(self):
        self.operations = []

    def call(self, operation):
        self.operations.append(operation)
        return "answer"


def test_every_operation_is_passed_on():
    store = Store()
    assert KeyedCall(store, KEY).call("operation") == "answer"
    assert store.operations == ["operation"]


def test_the_key_of_a_call():
    assert key_of(Store()) is None
    assert key_of(KeyedCall(Store(), None)) is None
    assert key_of(KeyedCall(Store(), KEY)) is KEY


def test_a_whole_key_hides_the_name_of_a_resource():
    assert resource_for(Store(), "host:/path") == "host:/path"
    assert resource_for(KeyedCall(Store(), KEY), "host:/path") == KEY.opaque_name("host:/path")


@pytest.mark.parametrize("key", [None, PublicKey(KEY.public)], ids=["no key", "public part"])
def test_less_than_a_whole_key_cannot_hide_it(key):
    with pytest.raises(ConfigurationError, match="whole key") as raised:
        resource_for(KeyedCall(Store(), key), "host:/path")
    assert "--resource NAME" in raised.value.hint


def test_without_a_key_there_is_no_passphrase():
    with pytest.raises(ConfigurationError, match="no key was given"):
        KeyedCall(Store(), None).ask()
