"""The demo runs from end to end on a small folder, notices a difference, and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import urllib.request

import pytest

from support import tree

PROGRAM = tree.ROOT / "demo" / "demo.py"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["demo"]


@pytest.fixture
def folder(tmp_path):
    """Some files of every kind the demo tells apart: empty, small, just one chunk, larger, and with odd names."""
    folder = tmp_path / "folder"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "skipped.pyc").write_bytes(b"x")
    for number in range(60):
        (folder / "deep" / f"small-{number:02}").write_bytes(b"line\n" * number)
    (folder / "chunk").write_bytes(bytes(1024 * 1024))
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
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(scratch), "AWS_ACCESS_KEY_ID": "not used"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "every restored file equals its original" in done.stdout
    rows = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    for row in ("first backup", "second, incremental", "restore of the first", "restore of the second", "second again"):
        assert row in rows
    assert list(scratch.iterdir()) == []


def test_a_folder_equals_itself_only(demo, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        for file in ("same", "bytes", "mode", f"only-{name}"):
            path = tmp_path / name / "sub" / file
            path.write_text("text", encoding="utf-8")
            demo.apply(path, "mode=640 mtime_ns=1700000000000000001 size=4")
    (tmp_path / "two" / "sub" / "bytes").write_text("tex!", encoding="utf-8")
    (tmp_path / "two" / "sub" / "mode").chmod(0o600)
    assert demo.compare(tmp_path / "one", tmp_path / "one") == []
    assert demo.compare(tmp_path / "one", tmp_path / "two") == [
        "sub/bytes has other bytes",
        "sub/mode has another mode or time",
        "sub/only-one is in one of the two only",
        "sub/only-two is in one of the two only",
    ]


def test_an_object_name_cannot_leave_the_target(demo, tmp_path):
    with pytest.raises(ValueError, match="would leave the target folder"):
        demo.Demo(None, tmp_path).restore_file("JOB", "../outside", "TOKEN", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_the_changes_are_real(demo, folder, tmp_path):
    before = {path: path.read_bytes() for path in demo.files_below(folder)}
    demo.change_some_files(folder)
    after = {path: path.read_bytes() for path in demo.files_below(folder)}
    assert before.keys() - after.keys(), "some are deleted"
    assert after.keys() - before.keys(), "some are added"
    assert any(before[path] != after[path] for path in before.keys() & after.keys()), "some are changed"


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
