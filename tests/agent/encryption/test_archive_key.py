"""Derived secrets never change: a golden file that later versions must reproduce."""

from __future__ import annotations

import json

from cryostore.agent.encryption.archive_key import ArchiveKey
from support.archives.sealed_samples import ARCHIVE_KEY, KEY, golden


def test_derived_secrets_stay_the_same():
    """With another secret, no existing archive could be read and no run could be resumed."""
    first = ArchiveKey.first(KEY.archive_seed, "tree", "JOB")
    derived = {
        "public": KEY.public,
        "fingerprint": KEY.fingerprint.encode(),
        "owner tag": KEY.owner_tag(b"data"),
        "opaque name": KEY.opaque_name("host:/path").encode(),
        "first key id": first.key_id,
        "first secret": first.secret,
        "first identity": first.id_secret,
        "piece id": ARCHIVE_KEY.chunk_id(b"piece"),
        "place key": ARCHIVE_KEY.chunk_key(b"place"),
        "nonce key": ARCHIVE_KEY.nonce_key(),
        "cut secret": ARCHIVE_KEY.cut_secret,
    }
    assert {name: value.hex() for name, value in derived.items()} == json.loads(golden("agent-derived.json"))
