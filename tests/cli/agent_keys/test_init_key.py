"""`cryo init-key`: key files, and the passphrases that protect them."""

from __future__ import annotations

import json
import stat

COVERS = ("cli/agent_keys.py",)


def test_a_key_file_is_private_and_never_replaced(cryo, tmp_path):
    code, _, warning = cryo("init-key", tmp_path / "key")
    assert code == 0
    assert "are unrecoverable" in warning
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    before = (tmp_path / "key").read_bytes()
    code, _, error = cryo("init-key", tmp_path / "key")
    assert (code, (tmp_path / "key").read_bytes()) == (2, before)
    assert "a key is never replaced" in error


def test_a_passphrase_comes_from_a_file_or_a_terminal(cryo, tmp_path, monkeypatch):
    code, _, error = cryo("init-key", tmp_path / "key", "--passphrase")
    assert (code, (tmp_path / "key").exists()) == (2, False)
    assert "CRYO_KEY_PASSPHRASE_FILE" in error
    (tmp_path / "passphrase").write_text("correct horse\n")
    monkeypatch.setenv("CRYO_KEY_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    assert cryo("init-key", tmp_path / "key", "--passphrase")[0] == 0
    assert "secret" not in json.loads((tmp_path / "key").read_text())
    assert cryo("agent-key", "paper", tmp_path / "key")[0] == 0
    (tmp_path / "passphrase").write_text("wrong horse\n")
    code, out, error = cryo("agent-key", "paper", tmp_path / "key")
    assert (code, out) == (2, "")
    assert "passphrase" in error
