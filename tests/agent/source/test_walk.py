"""Walk: folders with a cache tag are stored without their content, if the run asks for that."""

from __future__ import annotations

import os

from support.archives.agent import seen, write

SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"


def test_folders_with_a_cache_tag_are_stored_without_their_content(local_runs, tmp_path):
    source = tmp_path / "source"
    write(source, {"cache": {"CACHEDIR.TAG": SIGNATURE + b"\n# more", "data": b"", "deep": {"data": b""}}})
    write(source, {"no cache": {"CACHEDIR.TAG": b"Signature: another", "data": b""}})
    write(source, {"short": {"CACHEDIR.TAG": b"", "data": b""}})
    write(source, {"pipe": {"CACHEDIR.TAG": os.mkfifo, "data": b""}})
    report, _ = local_runs.backup(source, without_caches=True)
    assert report.skipped == {"a cache": 1}
    local_runs.restore(tmp_path / "target")
    assert {path for path in seen(source) if not path.startswith(b"cache/")} == set(seen(tmp_path / "target"))
    report, _ = local_runs.backup(source)
    assert not report.skipped
