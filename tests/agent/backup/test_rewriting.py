"""Choice of the content that a run stores again."""

from __future__ import annotations

import random

import pytest

from cryostore.agent.backup import rewriting
from cryostore.agent.backup.rewriting import DEAD_BYTES_MIN, MERGED_BYTES_MAX, OBJECTS_MAX, objects_to_rewrite
from cryostore.agent.header import ContentObject
from cryostore.core.limits import KIB, MIB
from support.archives.agent import seen, write


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def test_an_object_that_is_mostly_dead_is_retired():
    much = 4 * DEAD_BYTES_MIN
    assert objects_to_rewrite([ContentObject(1, much, much)]) == set()
    assert objects_to_rewrite([ContentObject(1, much, much // 2)]) == set()
    assert objects_to_rewrite([ContentObject(1, much, much // 2 - 1)]) == {1}
    assert objects_to_rewrite([ContentObject(1, DEAD_BYTES_MIN, 1)]) == set()  # too little to be worth it


def test_of_too_many_objects_the_smallest_are_retired():
    objects = [ContentObject(number, number * KIB, number * KIB) for number in range(1, OBJECTS_MAX + 2)]
    assert objects_to_rewrite(objects[:-1]) == set()
    assert objects_to_rewrite(objects) == set(range(1, OBJECTS_MAX // 2 + 2))
    large = [ContentObject(number, MERGED_BYTES_MAX, MERGED_BYTES_MAX) for number in range(1, OBJECTS_MAX + 2)]
    assert objects_to_rewrite(large) == {1}


def test_a_retired_object_is_gone_after_the_next_run(runs, tmp_path):
    write(tmp_path / "source", {f"{n:03}": noise(40 * KIB, n) for n in range(192)})
    runs.backup(tmp_path / "source")
    for n in range(192):
        if n % 8:
            (tmp_path / "source" / f"{n:03}").unlink()
    runs.backup(tmp_path / "source")  # sees that most of it is dead, in chunks that others still need
    opened = []
    report, _ = runs.backup(tmp_path / "source", before_read=opened.append)
    assert len(opened) == 24
    assert report.sent_bytes < 1500 * KIB  # the files that are left, and a catalog
    with runs.opened() as archive:
        assert [each.number for each in archive.header.objects] == [2]
    runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")
    assert runs.backup(tmp_path / "source")[1].same


def test_many_runs_leave_few_objects(local_runs, tmp_path, monkeypatch):
    monkeypatch.setattr(rewriting, "OBJECTS_MAX", 6)
    for number in range(15):
        write(tmp_path / "source", {f"file {number}": noise(1000, number)})
        local_runs.backup(tmp_path / "source")
        with local_runs.opened() as archive:
            assert len(archive.header.objects) <= 8
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_another_root_under_the_same_name_takes_the_content_all_the_same(local_runs, tmp_path):
    write(tmp_path / "one", {"file": noise(MIB, local_runs.resource), "small": noise(1000, local_runs.resource)})
    write(tmp_path / "two", {"file": noise(MIB, local_runs.resource), "small": noise(1000, local_runs.resource)})
    local_runs.backup(tmp_path / "one")
    report, _ = local_runs.backup(tmp_path / "two")
    assert (report.new, report.unchanged) == (2, 0)
    assert report.sent_bytes < 8 * KIB
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "two")


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_folders_come_and_go_anywhere(local_runs, tmp_path, where):
    name = {"first": "a", "middle": "m", "last": "z"}[where]
    write(tmp_path / "source", {each: {"x": {"file": each.encode()}} for each in "bny"})
    local_runs.backup(tmp_path / "source")
    write(tmp_path / "source", {name: {"x": {"file": b"new"}}})
    report, _ = local_runs.backup(tmp_path / "source")
    assert (report.new, report.unchanged) == (1, 3)
    for path in ("x/file", "x", ""):
        place = tmp_path / "source" / name / path
        place.unlink() if path.endswith("file") else place.rmdir()
    report, _ = local_runs.backup(tmp_path / "source")
    assert (report.new, report.unchanged) == (0, 3)
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")
