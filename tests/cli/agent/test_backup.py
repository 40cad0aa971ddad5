"""`cryo backup` of files and folders: paths, dry runs, issues, and interruption."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from cryostore.agent.source.walk import Walk
from cryostore.cli.exit_codes import FAILED, INTERRUPTED, OK, WITH_ISSUES
from support.archives.agent import seen, write
from support.processes.command_line import json_lines
from support.processes.serving import CRYO


def test_several_paths_make_one_tree(cryo, source, tmp_path):
    assert cryo("backup", source / "file", source / "folder")[0] == OK
    cryo("restore", "latest", tmp_path / "target")
    assert set(seen(tmp_path / "target")) == {b"", b"file", b"folder", b"folder/other"}
    assert cryo("backup", source / "file")[0] == OK
    cryo("restore", "latest", tmp_path / "single")
    assert set(seen(tmp_path / "single")) == {b"", b"file"}


def test_paths_are_read_from_a_file(cryo, source, tmp_path, monkeypatch):
    lines, ended = tmp_path / "lines", tmp_path / "ended"
    lines.write_text(f"{source}/file\n\n{source}/folder\n")
    assert cryo("backup", "--files-from", lines, "--resource", "lines")[0] == OK
    assert cryo("ls", "latest", "--resource", "lines")[1] == "file\nfolder/\n"
    ended.write_bytes(os.fsencode(source) + b"/\x1b[2J\n\0")
    monkeypatch.chdir(source)
    assert cryo("backup", "file", "--files-from", ended, "--resource", "ended")[0] == OK
    assert cryo("ls", "latest", "--resource", "ended")[1] == "\\x1b[2J\\x0a\nfile\n"
    (tmp_path / "empty").write_bytes(b"\n")
    for wrong in (tmp_path / "empty", tmp_path / "not there"):
        code, _, err = cryo("backup", "file", "--files-from", wrong)
        assert code == FAILED
        assert "contains no PATH" in err or "cannot read" in err
    assert cryo("backup", "--stdin", "--name", "x", "--files-from", lines)[0] == FAILED


def test_a_path_behind_a_symlink_is_restored(cryo, source, tmp_path):
    (tmp_path / "link").symlink_to(source / "folder")
    assert cryo("backup", tmp_path / "link" / "other", source / "file", "--resource", "behind")[0] == OK
    assert cryo("restore", "latest", tmp_path / "target", "--resource", "behind")[0] == OK
    assert (tmp_path / "target" / "folder" / "other").read_bytes() == b"other"
    (tmp_path / "links").write_text(f"{tmp_path}/link\n{source}/file\n{tmp_path}/link/gone\n")
    code, _, err = cryo("backup", "--files-from", tmp_path / "links", "--resource", "listed")
    assert code == WITH_ISSUES
    assert "folder/gone" in err
    assert cryo("restore", "latest", tmp_path / "listed", "--resource", "listed")[0] == OK
    assert (tmp_path / "listed" / "link").is_symlink()


def test_a_dry_run_neither_needs_nor_makes_a_store(cryo, source, tmp_path):
    assert cryo("backup", source, "--dry-run") == (OK, "3 files, 2 folders, 16 B\n", "")
    assert not (tmp_path / "data").exists()
    cryo("backup", source)
    assert cryo("backup", source, "--dry-run") == (OK, "3 files, 2 folders, 16 B\n", "")


def test_a_dry_run_lists_the_entries_of_a_backup(cryo, source):
    write(source, {b"bad\xff": b""})
    _, out, _ = cryo("backup", source, "--dry-run", "--list", "--exclude", "other")
    assert out.splitlines()[:4] == ["\\x1b[2J\\x0a", "bad\\xff", "file", "folder"]
    assert "skipped: 1, excluded by a pattern" in out
    _, out, _ = cryo("backup", source, "--dry-run", "--list", "--json")
    assert {"type": "entry", "path": "bad\udcff", "path_base64": "YmFk/w=="} in json_lines(out)
    assert cryo("backup", source, "--list")[0] == FAILED


def test_skipped_entries_are_counted_by_reason(cryo, source):
    write(source, {"big": b"x" * 3000, "a.o": b"", "folder": {"b.o": b""}})
    _, out, _ = cryo("backup", source, "--exclude", "*.o", "--exclude-larger-than", "2K")
    assert "skipped: 2, excluded by a pattern\nskipped: 1, larger than wanted" in out
    _, out, _ = cryo("backup", source, "--exclude", "*.o", "--json")
    assert json_lines(out)[0]["skipped"] == {"excluded by a pattern": 2}


def test_issues_exit_with_1(cryo, source, monkeypatch):
    (source / "loop").symlink_to(source)
    real = os.readlink

    def unreadable(path, *, dir_fd=None):
        if path == b"loop":
            raise PermissionError(13, "Permission denied")
        return real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "readlink", unreadable)
    code, out, err = cryo("backup", source)
    assert code == WITH_ISSUES
    assert "loop: Permission denied" in err
    assert "1 issues: the backup is incomplete" in out
    code, out, _ = cryo("backup", source, "--json")
    assert code == WITH_ISSUES
    assert json_lines(out)[0] == {"type": "issue", "path": "loop", "reason": "Permission denied"}
    assert "1 items were skipped" in cryo("points")[1]


def _refusing(refused, opening=os.open):
    def opened(path, *arguments, **options):
        if path == refused:
            raise PermissionError(13, "Permission denied")
        return opening(path, *arguments, **options)

    return opened


def test_json_has_the_exact_path_of_an_issue(cryo, source, monkeypatch):
    write(source, {b"a\\b\xff": b"secret"})
    monkeypatch.setattr(os, "open", _refusing(b"a\\b\xff"))
    code, out, _ = cryo("backup", source, "--json")
    assert code == WITH_ISSUES
    issue = json_lines(out)[0]
    assert (issue["path"], issue["path_base64"]) == ("a\\b\udcff", "YVxi/w==")


def test_a_store_inside_the_source_is_skipped(cryo, source, tmp_path):
    (tmp_path / "alias").symlink_to(tmp_path)
    assert cryo("backup", tmp_path / "alias" / "source", "--data-dir", source / "store")[0] == OK
    code, out, _ = cryo("backup", source, "--data-dir", source / "store")
    assert code == OK
    assert "skipped: 1, the store itself" in out
    cryo("restore", "latest", tmp_path / "target", "--data-dir", source / "store")
    assert list((tmp_path / "target" / "store").iterdir()) == []
    assert cryo("backup", source, "--data-dir", source)[0] == FAILED


def test_a_tree_may_be_deeper_than_the_limit_of_open_files(source, tmp_path):
    source.joinpath(*["d"] * 60).mkdir(parents=True)
    line = [*CRYO, "backup", source, "--data-dir", tmp_path / "data"]
    limited = ["/bin/sh", "-c", 'ulimit -Sn 50; exec "$@"', "sh", *map(os.fspath, line)]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert (done.returncode, "62 folders" in done.stdout) == (OK, True), done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_aborts_the_job_of_a_backup(cryo, source, monkeypatch, number):
    listed = Walk._list

    def told(*arguments):
        signal.raise_signal(number)
        return listed(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Walk, "_list", told)
        code, out, err = cryo("backup", source)
    assert (code, out) == (INTERRUPTED, "")
    said = "interrupted: no recovery point was made; the next run resumes this one"
    assert err.splitlines()[-1] == said
    assert cryo("points")[1] == ""
    assert "failed: interrupted" in cryo("status")[1]
    assert cryo("backup", source)[0] == OK
