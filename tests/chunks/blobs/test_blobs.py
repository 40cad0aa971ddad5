"""open_blobs: the store that each URL or path opens."""

from __future__ import annotations

import pytest

from cryostore.chunks.blobs import open_blobs
from cryostore.chunks.blobs.local import LocalBlobs
from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.core.errors import ConfigurationError


def test_a_path_or_file_url_is_a_directory_and_is_created(tmp_path):
    for place in (tmp_path / "a" / "b", str(tmp_path / "c"), f"file://{tmp_path}/d"):
        store = open_blobs(place)
        assert isinstance(store, LocalBlobs)
        store.put("key", b"x")
    assert [(tmp_path / name / "key").read_bytes() for name in ("a/b", "c", "d")] == [b"x", b"x", b"x"]


def test_a_relative_path_with_a_colon_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_blobs("./a:b").put("key", b"x")
    assert (tmp_path / "a:b" / "key").exists()


def test_memory_starts_empty_each_time():
    first, second = open_blobs("memory:"), open_blobs("memory:")
    first.put("key", b"x")
    assert isinstance(first, MemoryBlobs)
    assert second.stat("key") is None


@pytest.mark.parametrize(
    "place", ["s3:bucket", "ftp://bucket", "file:relative", "file://host/path", "memory:x", "http://x"]
)
def test_other_schemes_are_refused_with_a_hint(place):
    with pytest.raises(ConfigurationError) as caught:
        open_blobs(place)
    assert caught.value.hint
