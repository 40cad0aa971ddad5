"""A call with a key: it passes operations on, hides the names of resources, and opens locks.

A lock of another writer costs little and does not hide a valid one.
"""

from __future__ import annotations

import json

import pytest

from cryostore.agent.archive.open_archive import open_archive
from cryostore.agent.archive.reader import Archive
from cryostore.agent.archive.recovery_points import find_point
from cryostore.agent.backup.key_changes import change_access
from cryostore.agent.encryption import key_file, keyed_call
from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.encryption.cipher import SALT_BYTES, Stretching
from cryostore.agent.encryption.keyed_call import KeyedCall, key_of, resource_for
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from support.archives.agent import Runs, write
from support.archives.sealed_samples import KEY

CHEAP = Stretching(bytes(SALT_BYTES), 1, 1, 64)


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
def test_without_a_whole_key_the_name_of_a_resource_cannot_be_hidden(key):
    with pytest.raises(ConfigurationError, match="whole key") as raised:
        resource_for(KeyedCall(Store(), key), "host:/path")
    assert "--resource NAME" in raised.value.hint


def test_without_a_key_there_is_no_passphrase():
    with pytest.raises(ConfigurationError, match="no key was given"):
        KeyedCall(Store(), None).ask()


def lock(passphrase="right", stretching=CHEAP):
    return key_file.encode(AgentKey.generate(), passphrase, stretching)


def with_costs(data, **costs):
    document = json.loads(data)
    document["argon2id"] |= costs
    return json.dumps(document).encode()


@pytest.fixture
def opened_with(local_runs, tmp_path, monkeypatch):
    """Opens an archive that has these locks with a passphrase; returns the costs of the tried locks."""
    runs = Runs(local_runs.call, local_runs.resource, AgentKey.generate())
    write(tmp_path / "source", {"file": b"file"})
    runs.backup(tmp_path / "source")
    whole = AgentKey.generate()

    def call(locks, right=True, stretching=CHEAP):
        point = find_point(local_runs.call, "latest", None, runs.resource)

        def add(access):
            access.add(whole, "mine", key_file.encode(whole, "right", stretching) if right else b"")
            access.locks |= locks

        change_access(runs.keyed_call, point, add)
        tried = []
        stretched = key_file.stretched
        monkeypatch.setattr(key_file, "stretched", lambda secret, how: tried.append(how) or stretched(secret, how))
        inner = KeyedCall(local_runs.call, None, ask=lambda: "right")
        with open_archive(inner, find_point(inner, "latest", None, runs.resource), "list") as archive:
            assert isinstance(archive, Archive)
        assert inner.key.fingerprint == whole.fingerprint
        return tried

    return call


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"x" * 100_000,
        lock("another"),
        with_costs(lock(), lanes=0),
        with_costs(lock(), salt="!"),
    ],
)
def test_a_malformed_lock_is_skipped(opened_with, bad):
    opened_with({f"lock-{number:032x}": bad for number in range(3)})


@pytest.mark.parametrize("costs", [{"memory_kib": 4 * 1024 * 1024}, {"iterations": 64, "memory_kib": 512 * 1024}])
def test_a_lock_above_the_cost_limit_is_not_tried(opened_with, costs):
    tried = opened_with({f"lock-{number:032x}": with_costs(lock(), **costs) for number in range(3)})
    assert tried == [CHEAP._replace(salt=tried[0].salt)]


def test_the_cheapest_lock_is_tried_first(opened_with):
    dear = {f"lock-{number:032x}": with_costs(lock(), iterations=50 - number, memory_kib=1024) for number in range(3)}
    mine = CHEAP._replace(iterations=49, memory_kib=1024)
    assert [how.iterations for how in opened_with(dear, stretching=mine)] == [48, 49]


def test_the_total_cost_of_locks_is_limited(opened_with, monkeypatch):
    monkeypatch.setattr(keyed_call, "ALL_WORK_MAX", 10 * CHEAP.work)
    locks = {f"lock-{number:032x}": lock("another") for number in range(20)}
    with pytest.raises(KeyUnavailableError, match="opens no key"):
        opened_with(locks, right=False)
