"""Keyring from an environment variable."""

from __future__ import annotations

import base64
import os
import subprocess
import sys

import pytest

from conformance.keyring import KeyringSourceTests
from cryostore.chunks.keyring.sources import EnvironmentKeyring
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from support.stores.keyrings import BOTH

COVERS = ("chunks/keyring/sources.py",)
NAME = "CRYOSTORE_TEST_KEYS"


class TestEnvironmentKeyring(KeyringSourceTests):
    @pytest.fixture
    def document(self):
        return BOTH

    @pytest.fixture
    def ring(self, monkeypatch, document):
        monkeypatch.setenv(NAME, document.encode().decode())
        return EnvironmentKeyring(NAME)


@pytest.mark.parametrize(
    "text", [BOTH.encode().decode(), base64.b64encode(BOTH.encode()).decode()], ids=["json", "base64"]
)
def test_the_variable_is_removed_from_the_environment(monkeypatch, text):
    monkeypatch.setenv(NAME, text)
    assert EnvironmentKeyring(NAME).document().is_same(BOTH)
    assert NAME not in os.environ
    probe = f"import os; print({NAME!r} in os.environ)"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, check=True).stdout == b"False\n"


def test_an_unset_variable_is_a_configuration_error(monkeypatch):
    monkeypatch.delenv(NAME, raising=False)
    with pytest.raises(ConfigurationError, match=f"{NAME} is not set"):
        EnvironmentKeyring(NAME)


def test_an_invalid_variable_is_removed_and_not_repeated(monkeypatch):
    monkeypatch.setenv(NAME, "s3cret but no keyring")
    with pytest.raises(ConfigurationError, match="does not hold a keyring") as caught:
        EnvironmentKeyring(NAME)
    assert "s3cret" not in caught.value.message + caught.value.hint
    assert NAME not in os.environ


def test_a_missing_key_needs_a_restart(monkeypatch):
    monkeypatch.setenv(NAME, BOTH.encode().decode())
    with pytest.raises(KeyUnavailableError) as caught:
        EnvironmentKeyring(NAME).key("third")
    assert "restart the server" in caught.value.hint
