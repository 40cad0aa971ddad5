"""The place of a shared store, and a command line."""

from __future__ import annotations

import pytest

from cryostore.cli.verbs import run
from support.stores.shared_store import fresh_place


@pytest.fixture
def cryo(capsys, monkeypatch):
    """Run a command line, check its exit code, and return its output."""
    for name in ("CRYO_DATA_DIR", "CRYO_CATALOG", "CRYO_BLOBS", "CRYO_KEYRING", "CRYO_CONFIG"):
        monkeypatch.delenv(name, raising=False)

    def carry_out(*arguments, code=0):
        assert run([str(argument) for argument in arguments]) == code, capsys.readouterr()
        return capsys.readouterr()

    return carry_out


@pytest.fixture
def place(tmp_path):
    with fresh_place(tmp_path) as place:
        yield place
