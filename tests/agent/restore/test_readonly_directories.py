"""Read-only directories of a target: their owner can restore into them."""

from __future__ import annotations

import stat

import pytest

from support.archives.agent import Runs, seen, write


@pytest.mark.parametrize("mode", [0o555, 0o500, 0o300, 0o000])
def test_the_owner_of_a_read_only_folder_can_restore_into_it(client, as_nobody, mode):
    runs = Runs(client, f"nobody-{mode:o}")
    source, target = as_nobody / "source", as_nobody / "target"
    write(source, {"kept": b"kept", "shut": {"changed": b"changed", "shut": {"lost": b"lost"}}})
    runs.backup(source)
    for deep in ("shut/shut", "shut"):
        (source / deep).chmod(0o555)
    runs.backup(source)
    runs.restore(target)
    for folder in ("shut", "shut/shut"):
        (target / folder).chmod(0o755)
    (target / "shut" / "changed").write_bytes(b"by mistake")
    (target / "shut" / "shut" / "lost").unlink()
    write(target / "shut" / "shut", {"extra": b""})
    for folder in ("shut/shut", "shut"):
        (target / folder).chmod(mode)
    assert runs.restore(target, overwrite="never").issue_count == 0
    assert stat.S_IMODE((target / "shut").stat().st_mode) == mode
    report = runs.restore(target, delete=True)
    assert (report.issue_count, report.new, report.deleted) == (0, 1, 1)
    assert seen(target) == seen(source)
