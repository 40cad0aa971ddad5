"""The demo on a small folder: it runs to the end, detects a difference, and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from support import project

PROGRAM = project.ROOT / "demo" / "demo.py"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["demo"]


@pytest.fixture
def folder(tmp_path):
    """Make files of every kind that the demo distinguishes: empty, small, larger, odd names, and some to exclude."""
    folder = tmp_path / "folder"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "skipped.pyc").write_bytes(b"x")
    for number in range(60):
        (folder / "deep" / f"small-{number:02}").write_bytes(b"line\n" * number)
    (folder / "larger").write_bytes(bytes(range(256)) * 10_000)
    (folder / "deep" / "er" / "ümlaut 100%.txt").write_text("text", encoding="utf-8")
    (folder / "read-only").write_text("text", encoding="utf-8")
    (folder / "read-only").chmod(0o440)
    return folder


def test_the_demo_from_end_to_end(folder, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, PROGRAM, folder],
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(scratch), "AWS_ACCESS_KEY_ID": "no", "CRYO_DATA_DIR": "/no"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.endswith("everything restored equals what was backed up\n")
    assert "0 new, 0 changed, 67 unchanged" in done.stdout, "the second run opens no file"
    rows = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    for row in ("first backup", "second, nothing changed", "third, incremental", "restore of the first"):
        assert row in rows
    assert list(scratch.iterdir()) == []


def test_a_folder_equals_itself_only(demo, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        for file in ("same", "bytes", "mode", "time", f"only-{name}"):
            path = tmp_path / name / "sub" / file
            path.write_text("text", encoding="utf-8")
            path.chmod(0o640)
            os.utime(path, ns=(0, 1_700_000_000_000_000_001))
        os.utime(tmp_path / name / "sub", ns=(0, 0))
    (tmp_path / "two" / "sub" / "bytes").write_text("tex!", encoding="utf-8")
    os.utime(tmp_path / "two" / "sub" / "bytes", ns=(0, 1_700_000_000_000_000_001))
    (tmp_path / "two" / "sub" / "mode").chmod(0o600)
    os.utime(tmp_path / "two" / "sub" / "time", ns=(0, 1_700_000_000_000_000_002))
    one, two = demo.state_of(tmp_path / "one"), demo.state_of(tmp_path / "two")
    assert demo.compare(one, one) == []
    assert [line.partition(": ")[0] for line in demo.compare(one, two)] == [
        "'sub/bytes'",
        "'sub/mode'",
        "'sub/only-one' is in only one of the two",
        "'sub/only-two' is in only one of the two",
        "'sub/time'",
    ]


def test_links_and_attributes_count(demo, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        demo.add_odd_files(tmp_path / name)
        os.utime(tmp_path / name / "odd", ns=(0, 0))
        for path in (tmp_path / name / "odd").iterdir():
            os.utime(path, ns=(0, 0), follow_symlinks=False)
    one = demo.state_of(tmp_path / "one")
    assert demo.compare(one, demo.state_of(tmp_path / "two")) == []
    (tmp_path / "two" / "odd" / "two").unlink()
    (tmp_path / "two" / "odd" / "two").write_text("one file, two names\n", encoding="utf-8")
    os.utime(tmp_path / "two" / "odd" / "two", ns=(0, 0))
    os.utime(tmp_path / "two" / "odd", ns=(0, 0))
    assert [line.partition(": ")[0] for line in demo.compare(one, demo.state_of(tmp_path / "two"))] == ["'odd/two'"]


def test_the_changes_are_real(demo, folder):
    demo.add_odd_files(folder)
    before = demo.state_of(folder)
    demo.change_some_files(folder)
    after = demo.state_of(folder)
    assert before.keys() - after.keys(), "some are deleted"
    assert after.keys() - before.keys(), "some are added"
    assert any(before[path][-1] != after[path][-1] for path in before.keys() & after.keys()), "some are changed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_its_server_and_removes_its_files(folder, tmp_path, number):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(scratch)}
    with subprocess.Popen([sys.executable, PROGRAM, folder], env=environment, stdout=subprocess.PIPE, text=True) as run:
        try:
            url = next(line for line in run.stdout if line.startswith("listening on ")).split()[-1]
            run.send_signal(number)
            assert run.wait(120) != 0
        finally:
            run.kill()
    assert list(scratch.iterdir()) == []
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{url}/-/health", timeout=10)
