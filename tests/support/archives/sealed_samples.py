"""Fixed keys and the golden files that were written with them, for tests of the sealed formats."""

from __future__ import annotations

from pathlib import Path

from cryostore.agent.encryption.agent_key import AgentKey
from cryostore.agent.encryption.archive_key import ArchiveKey

GOLDEN = Path(__file__).parents[2] / "golden"
KEY = AgentKey(bytes(range(32)))
ARCHIVE_KEY = ArchiveKey(bytes(range(16)), bytes(range(32, 64)), bytes(range(64, 96)))
KEYS = {ARCHIVE_KEY.key_id: ARCHIVE_KEY}
PASSPHRASE = "correct horse battery staple"


def golden(name):
    return (GOLDEN / name).read_bytes()


def golden_hex(name):
    return bytes.fromhex(golden(name).decode())
