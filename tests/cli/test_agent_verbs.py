"""`cryo backup`, `restore`, `points`, `ls` and `verify`, as they are called: exit codes, words, lines of JSON."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cryostore.agent.backup.job import open_job
from cryostore.agent.source.walk import Walk
from cryostore.cli.agent_store import AgentStore, open_agent_store
from cryostore.cli.exit_codes import FAILED, INTERRUPTED, OK
from cryostore.cli.verbs import run
from cryostore.core.errors import CryostoreError
from cryostore.core.limits import MIB
from cryostore.model.jobs import ListBackupJobs
from support.archives.agent import Runs, seen, write
from support.processes.serving import CRYO, serving

COVERS = (
    "cli/agent/backup.py",
    "cli/agent/cat.py",
    "cli/agent/diff.py",
    "cli/agent/find.py",
    "cli/agent/ls.py",
    "cli/agent/points.py",
    "cli/agent/restore.py",
    "cli/agent/verify.py",
    "cli/agent_store.py",
)


WITH_ISSUES = 1


@pytest.fixture
def cryo(tmp_path, monkeypatch, capsys):
    """Carries out a command line on a store in a directory; answers its exit code, stdout and stderr."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("CRYO_DATA_DIR", str(tmp_path / "data"))

    def call(*arguments):
        code = run([os.fspath(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def source(tmp_path):
    """A folder to back up."""
    write(tmp_path / "source", {"file": b"file", "folder": {"other": b"other"}, b"\x1b[2J\n": b"control"})
    return tmp_path / "source"


def test_there_and_back(cryo, source, tmp_path):
    code, out, err = cryo("backup", source)
    assert code == OK
    assert "3 new, 0 changed, 0 unchanged" in out
    assert "made a new store; nothing in it can be read without its keys: copy " in err
    assert "made" not in cryo("backup", source)[2]
    code, out, err = cryo("restore", "latest", tmp_path / "target")
    assert (code, err) == (OK, "")
    assert "3 restored, 0 left as they are, 0 deleted" in out
    assert seen(tmp_path / "target") == seen(source)


def test_programs_get_lines_of_json(cryo, source, tmp_path):
    _, out, _ = cryo("backup", source, "--json")
    (made,) = lines_of(out)
    assert (made["type"], made["new"], made["issues"]) == ("summary", 3, 0)
    (listed,) = lines_of(cryo("points", "--json")[1])
    assert listed["RecoveryPointArn"] == made["RecoveryPointArn"]
    assert listed["CreationDate"] > 0
    (restored,) = lines_of(cryo("restore", "latest", tmp_path / "target", "--json")[1])
    assert (restored["restored"], restored["issues"]) == (3, 0)
    entries = lines_of(cryo("ls", "latest", "-R", "--json")[1])
    assert [entry["path"] for entry in entries] == ["\x1b[2J\n", "file", "folder", "folder/other"]
    (verified,) = lines_of(cryo("verify", "latest", "--data", "--json")[1])
    assert (verified["files"], verified["issues"]) == (3, 0)


def test_what_names_a_recovery_point(cryo, source, tmp_path):
    arns = [lines_of(cryo("backup", source, "--json")[1])[0]["RecoveryPointArn"] for _ in range(2)]
    ids = [arn.rpartition(":")[2] for arn in arns]
    for name in (
        arns[0],
        ids[0],
        ids[0].lower(),
        ids[0][:12],
        f"{arns[0]}:folder",
        f"{ids[0]}:folder",
        "latest:folder",
    ):
        assert cryo("ls", name)[0] == OK
    assert cryo("ls", "latest:folder")[1] == "folder/other\n"
    assert cryo("ls", f"latest:{source}/folder")[1] == "folder/other\n"
    for name in ("", "nothing", "arn:aws:backup:local-1:000000000000:recovery-point:NONE"):
        code, out, err = cryo("ls", name)
        assert (code, out) == (FAILED, "")
        assert "there is no recovery point" in err or "beginning" in err


def test_names_cannot_move_the_cursor(cryo, source):
    cryo("backup", source)
    out = cryo("ls", "latest")[1]
    assert r"\x1b[2J\x0a" in out
    assert "\x1b" not in out


def test_the_long_form(cryo, source):
    (source / "link").symlink_to("nowhere")
    cryo("backup", source)
    out = cryo("ls", "-l", "latest")[1]
    assert "-> nowhere" in out
    assert out.splitlines()[1].startswith("-rw")


def test_issues_make_one(cryo, source, monkeypatch):
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
    assert lines_of(out)[0] == {"type": "issue", "path": "loop", "reason": "Permission denied"}
    assert "1 items were skipped" in cryo("points")[1]


def test_what_cannot_be_done_at_all_makes_two(cryo, source, tmp_path):
    assert cryo("backup", tmp_path / "nowhere")[0] == FAILED
    assert cryo("restore", "latest", tmp_path / "target")[0] == FAILED
    assert "holds no store" in cryo("points")[2]
    cryo("backup", source)
    assert cryo("restore", "latest", source / "file")[0] == FAILED
    assert cryo("restore", "latest:nowhere", tmp_path / "target")[0] == FAILED
    assert cryo("backup", source, "--vault", "nowhere")[0] == FAILED
    assert cryo("backup", source, "--tag", "no-value")[0] == FAILED
    assert cryo("backup", source, "--exclude-larger-than", "much")[0] == FAILED
    assert cryo("backup", source, "--endpoint-url", "http://127.0.0.1:1")[0] == FAILED


def test_a_store_must_be_named(cryo, source, monkeypatch):
    monkeypatch.delenv("CRYO_DATA_DIR")
    code, _, err = cryo("backup", source)
    assert code == FAILED
    assert "hint: name a store with --data-dir DIR, or a server with --endpoint-url URL" in err


def test_patterns_and_sizes_leave_out(cryo, source, tmp_path):
    write(source, {"big": b"x" * 3000, "keep.o": b"", "drop.o": b"", "node_modules": {"deep": b""}})
    patterns = tmp_path / "patterns"
    patterns.write_text("# objects\n*.o\n!keep.o\n")
    options = ("--exclude", "node_modules", "--exclude-file", patterns, "--exclude-larger-than", "2K")
    assert cryo("backup", source, *options, "--exclude", f"{source}/folder/other")[0] == OK
    cryo("restore", "latest", tmp_path / "target")
    assert set(seen(tmp_path / "target")) == {b"", b"file", b"folder", b"keep.o", b"\x1b[2J\n"}


def test_several_paths_make_one_tree(cryo, source, tmp_path):
    assert cryo("backup", source / "file", source / "folder")[0] == OK
    cryo("restore", "latest", tmp_path / "target")
    assert set(seen(tmp_path / "target")) == {b"", b"file", b"folder", b"folder/other"}
    assert cryo("backup", source / "file")[0] == OK
    cryo("restore", "latest", tmp_path / "single")
    assert set(seen(tmp_path / "single")) == {b"", b"file"}


def test_a_dry_run_makes_no_store_and_needs_none(cryo, source, tmp_path):
    assert cryo("backup", source, "--dry-run") == (OK, "3 files, 2 folders, 16 B\n", "")
    assert not (tmp_path / "data").exists()
    cryo("backup", source)
    assert cryo("backup", source, "--dry-run") == (OK, "3 files, 2 folders, 16 B\n", "")


def test_a_dry_run_names_what_would_be_backed_up(cryo, source):
    write(source, {b"bad\xff": b""})
    _, out, _ = cryo("backup", source, "--dry-run", "--list", "--exclude", "other")
    assert out.splitlines()[:4] == ["\\x1b[2J\\x0a", "bad\\xff", "file", "folder"]
    assert "skipped: 1, excluded by a pattern" in out
    _, out, _ = cryo("backup", source, "--dry-run", "--list", "--json")
    assert {"type": "entry", "path": "bad\udcff", "path_base64": "YmFk/w=="} in lines_of(out)
    assert cryo("backup", source, "--list")[0] == FAILED


def test_what_is_left_out_is_counted_by_reason(cryo, source):
    write(source, {"big": b"x" * 3000, "a.o": b"", "folder": {"b.o": b""}})
    _, out, _ = cryo("backup", source, "--exclude", "*.o", "--exclude-larger-than", "2K")
    assert "skipped: 2, excluded by a pattern\nskipped: 1, larger than wanted" in out
    _, out, _ = cryo("backup", source, "--exclude", "*.o", "--json")
    assert lines_of(out)[0]["skipped"] == {"excluded by a pattern": 2}


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--exclude", "[z-a]"), "invalid pattern"),
        (("--exclude-larger-than", "-5"), "invalid size '-5'"),
        (("",), "a PATH is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused(cryo, source, option, says):
    code, _, err = cryo("backup", source, *option)
    assert code == FAILED
    assert says in err
    assert "Traceback" not in err


def test_paths_come_from_a_file(cryo, source, tmp_path, monkeypatch):
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


def test_a_path_behind_a_symlink_comes_back(cryo, source, tmp_path):
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


def test_names_of_others_cannot_move_the_cursor(cryo, tmp_path):
    """A job may be begun under any name, also by a machine that means no good; the commit alone is refused."""
    with open_agent_store(AgentStore(tmp_path / "data", None, None), create=True) as call:
        open_job(call, "Default", "evil\x9b31m\u202e", {}).give_up(CryostoreError("no"))
    code, out, _ = cryo("status")
    assert code == OK
    assert "evil\\x9b31m\\u202e" in out
    assert out.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["", "evil\x9b31m"])
def test_a_resource_is_refused_before_anything_is_read(cryo, source, tmp_path, name):
    code, _, err = cryo("backup", source, "--resource", name)
    assert code == FAILED
    assert "is empty or contains control characters or invalid UTF-8" in err
    assert not (tmp_path / "data").exists()


def test_no_recovery_point_is_said(cryo, source):
    cryo("backup", source, "--resource", "tree")
    assert cryo("points", "--resource", "other") == (OK, "", "no matching recovery point\n")
    assert cryo("points", "--resource", "other", "--json") == (OK, "", "")


def test_a_full_disk_behind_stdout_is_named(source, tmp_path):
    with open_agent_store(AgentStore(tmp_path / "data", None, None), create=True) as call:
        Runs(call).backup(source)
    line = [*CRYO, "cat", "latest:file", "--data-dir", tmp_path / "data"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == FAILED
    assert done.stderr.startswith("error: cannot write to stdout: No space left on device\n")


def test_a_path_on_another_file_system_is_not_left_out_unsaid(cryo, source):
    code, _, err = cryo("backup", "/", "/proc", "--one-file-system", "--dry-run")
    assert code == FAILED
    assert "'/proc' lies inside another PATH, and --one-file-system leaves it out" in err
    assert cryo("backup", source, source / "folder", "--one-file-system", "--dry-run")[0] == OK


def test_programs_learn_the_exact_path_of_an_issue(cryo, source, monkeypatch):
    write(source, {b"a\\b\xff": b"secret"})
    monkeypatch.setattr(os, "open", _refusing(b"a\\b\xff"))
    code, out, _ = cryo("backup", source, "--json")
    assert code == WITH_ISSUES
    issue = lines_of(out)[0]
    assert (issue["path"], issue["path_base64"]) == ("a\\b\udcff", "YVxi/w==")


def test_a_file_goes_into_its_own_place(cryo, source, tmp_path):
    cryo("backup", source)
    (source / "folder" / "other").write_bytes(b"changed")
    assert cryo("restore", "latest:folder/other", source / "folder" / "other")[0] == OK
    assert (source / "folder" / "other").read_bytes() == b"other"
    (source / "folder" / "other").unlink()
    assert cryo("restore", "latest:folder/other", source / "folder" / "other")[0] == OK
    assert (source / "folder" / "other").read_bytes() == b"other"
    assert cryo("restore", "latest:folder/other", source / "folder")[0] == OK
    assert cryo("restore", "latest:folder/other", tmp_path / "new")[0] == OK
    assert (tmp_path / "new" / "other").read_bytes() == b"other"
    code, _, err = cryo("restore", "latest:folder/other", source / "file")
    assert code == FAILED
    assert "is not a folder, and its name is not that of the file" in err
    assert (source / "file").read_bytes() == b"file"


def test_what_was_never_backed_up_is_not_deleted(cryo, tmp_path):
    write(tmp_path / "top", {"etc": {"a": b"a"}, "home": {"user": {"b": b"b"}, "other": {}}, "usr": {"c": b"c"}})
    cryo("backup", tmp_path / "top" / "etc", tmp_path / "top" / "home" / "user")
    for point, target in (("latest", "top"), ("latest:home", "top/home")):
        code, _, err = cryo("restore", point, tmp_path / target, "--delete")
        assert code == FAILED
        assert "only parts of this folder were backed up" in err
    assert (tmp_path / "top" / "usr" / "c").exists()
    assert (tmp_path / "top" / "home" / "other").exists()
    write(tmp_path / "top" / "etc", {"new": b""})
    assert cryo("restore", "latest:etc", tmp_path / "top" / "etc", "--delete")[0] == OK
    assert not (tmp_path / "top" / "etc" / "new").exists()


def test_a_folder_with_something_in_it_becomes_no_store(cryo, source, tmp_path):
    code, _, err = cryo("backup", source / "folder", "--data-dir", tmp_path / "source")
    assert code == FAILED
    assert "is not a store, and not empty" in err
    assert {path.name for path in source.iterdir()} == {"\x1b[2J\n", "file", "folder"}
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)
    assert cryo("backup", source, "--data-dir", tmp_path / "disk")[0] == OK


def test_a_store_whose_disk_is_not_mounted_is_not_made_anew(cryo, source, tmp_path):
    """A link to another file system stands for the mounted disk, an empty folder for the place without it."""
    memory, mount_point = Path("/dev/shm"), tmp_path / "disk"
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    with TemporaryDirectory(dir=memory) as disk:
        mount_point.symlink_to(disk)
        assert cryo("backup", source, "--data-dir", mount_point / "store")[0] == OK
        mount_point.unlink()
        mount_point.mkdir()
        code, _, err = cryo("backup", source, "--data-dir", mount_point / "store")
        assert code == FAILED
        assert "there was a store in" in err
        assert not list(mount_point.iterdir())
        mount_point.rmdir()
        mount_point.symlink_to(disk)
        assert "made a new store" not in cryo("backup", source, "--data-dir", mount_point / "store")[2]
        shutil.rmtree(mount_point / "store")  # deleted on purpose
        assert "made a new store" in cryo("backup", source, "--data-dir", mount_point / "store")[2]


def test_a_tree_may_be_deeper_than_a_shell_lets_files_be_open(source, tmp_path):
    source.joinpath(*["d"] * 60).mkdir(parents=True)
    line = [*CRYO, "backup", source, "--data-dir", tmp_path / "data"]
    limited = ["/bin/sh", "-c", 'ulimit -Sn 50; exec "$@"', "sh", *map(os.fspath, line)]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert (done.returncode, "62 folders" in done.stdout) == (OK, True), done.stderr


def test_a_restore_that_is_terminated_leaves_no_half_written_file(cryo, source, tmp_path):
    write(source, {f"{number}": random.Random(number).randbytes(8 * MIB) for number in range(8)})
    cryo("backup", source)
    line = [*CRYO, "restore", "latest", tmp_path / "target", "--data-dir", tmp_path / "data"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("target/.cryo-restore-*")):  # held as soon as a file is half written
            process.send_signal(signal.SIGCONT)
            assert process.poll() is None
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        process.terminate()
        process.send_signal(signal.SIGCONT)
        said = process.stderr.read()
    assert process.returncode == INTERRUPTED
    assert said.strip() == "interrupted: complete files stay; the next run continues from there"
    assert not list(tmp_path.glob("target/.cryo-restore-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_backup_that_is_told_to_end_gives_its_job_up(cryo, source, monkeypatch, number):
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


def test_a_run_that_is_told_to_end_begins_no_operation_but_what_ends_it(monkeypatch, tmp_path):
    with serving(tmp_path / "served") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        for place in (
            AgentStore(tmp_path / "data", None, None),
            AgentStore(None, server.environment["AWS_ENDPOINT_URL"], None),
        ):
            with open_agent_store(place, create=True) as call:
                call.call(ListBackupJobs())
                signal.raise_signal(signal.SIGTERM)
                with pytest.raises(KeyboardInterrupt):
                    call.call(ListBackupJobs())
                call.call(ListBackupJobs())


def _refusing(refused, opening=os.open):
    def opened(path, *arguments, **options):
        if path == refused:
            raise PermissionError(13, "Permission denied")
        return opening(path, *arguments, **options)

    return opened


def test_a_store_in_the_folder_is_left_out(cryo, source, tmp_path):
    (tmp_path / "alias").symlink_to(tmp_path)
    assert cryo("backup", tmp_path / "alias" / "source", "--data-dir", source / "store")[0] == OK
    code, out, _ = cryo("backup", source, "--data-dir", source / "store")
    assert code == OK
    assert "skipped: 1, the store itself" in out
    cryo("restore", "latest", tmp_path / "target", "--data-dir", source / "store")
    assert list((tmp_path / "target" / "store").iterdir()) == []
    assert cryo("backup", source, "--data-dir", source)[0] == FAILED


def test_a_damaged_file_is_named(cryo, source, tmp_path):
    write(source, {"large": random.Random(1).randbytes(MIB)})
    cryo("backup", source)
    (pack,) = (tmp_path / "data" / "packs").rglob("*-*")
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    assert cryo("verify", "latest")[0] == OK
    code, out, err = cryo("verify", "latest", "--data")
    assert code == WITH_ISSUES
    assert "issues" in out
    assert "large: " in err


def test_what_is_damaged_is_healed_by_the_next_backup(cryo, source, tmp_path):
    write(source, {"large": os.urandom(6 * MIB)})
    cryo("backup", source)
    pack = max((tmp_path / "data").rglob("*.pack"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    assert cryo("scrub")[0] == WITH_ISSUES
    code, out, err = cryo("restore", "latest", tmp_path / "target")
    assert (code, err.splitlines()[-1].partition(":")[0]) == (WITH_ISSUES, "large")
    assert {"file", "folder"} < {path.name for path in (tmp_path / "target").iterdir()}
    code, out, _ = cryo("backup", source)
    assert code == OK
    assert "1 objects of the last backup are damaged in the store: sent again" in out
    for point in lines_of(cryo("points", "--json")[1]):
        assert cryo("verify", point["RecoveryPointArn"], "--data")[0] == OK
    (summary,) = lines_of(cryo("backup", source, "--json")[1])
    assert summary["damaged_objects"] == 0


def test_the_same_over_a_server(source, tmp_path):
    with serving(tmp_path / "served") as server:
        environment = server.environment | {"XDG_STATE_HOME": str(tmp_path / "state")}
        for arguments in (
            ["backup", source],
            ["restore", "latest", tmp_path / "target"],
            ["verify", "latest", "--data"],
        ):
            done = subprocess.run([*CRYO, *arguments], env=environment, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (OK, "")
    assert seen(tmp_path / "target") == seen(source)


def killed_backups(tmp_path, kills, more):
    """Back up a tree that changes while being killed at random moments, then to the end; answers the last summary."""
    rng = random.Random(5)
    write(tmp_path / "source", {f"{n:03}": rng.randbytes(MIB // 2 + n) for n in range(60)})
    data = tmp_path / "data"
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path / "state")}
    command = [sys.executable, "-m", "cryostore", "backup", str(tmp_path / "source"), "--data-dir", str(data), "--json"]
    command += more
    for number in range(kills):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            process.communicate(timeout=rng.uniform(0.2, 1.2))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        write(tmp_path / "source", {f"{number % 60:03}": rng.randbytes(MIB // 2), f"new {number}": rng.randbytes(9000)})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == OK, done.stderr
    return lines_of(done.stdout)[-1]


def check_after_kills(cryo, tmp_path, kills, writer=(), reader=()):
    summary = killed_backups(tmp_path, kills, [*map(str, writer)])
    assert summary["issues"] == 0
    assert cryo("restore", "latest", tmp_path / "target", *reader)[0] == OK
    assert seen(tmp_path / "target") == seen(tmp_path / "source")
    for point in lines_of(cryo("points", "--json")[1]):
        assert cryo("verify", point["RecoveryPointArn"], "--data", *reader)[0] == OK
    (found,) = lines_of(cryo("check", "--json")[1])
    if found["findings"]:  # a kill between the first bytes of a pack and the first row of it
        assert [finding["name"] for finding in found["findings"]] == ["pack-unknown"], found
        assert cryo("repair")[0] == OK
        assert cryo("check")[0] == OK


def test_kills_leave_nothing_half_done(cryo, tmp_path):
    check_after_kills(cryo, tmp_path, 3)


@pytest.mark.stress
@pytest.mark.parametrize("kind", ["plain", "sealed", "write-only"])
def test_many_kills_leave_nothing_half_done(cryo, tmp_path, kind):
    key, public = tmp_path / "key", tmp_path / "public"
    cryo("init-key", key, "--public-to", public)
    options = {
        "plain": ([], []),
        "sealed": (["--key", key], ["--key", key]),
        "write-only": (["--key", public, "--resource", "tree"], ["--key", key]),
    }
    check_after_kills(cryo, tmp_path, 60, *options[kind])


def test_a_dry_run_of_a_restore_names_what_it_would_do(cryo, source, tmp_path):
    cryo("backup", source)
    target = tmp_path / "target"
    write(target, {"file": b"another", "extra": b""})
    code, out, _ = cryo("restore", "latest", target, "--dry-run", "--list", "--delete")
    assert code == OK
    assert out.splitlines()[:5] == ["+ \\x1b[2J\\x0a", "C file", "+ folder", "+ folder/other", "- extra"]
    told = lines_of(cryo("restore", "latest", target, "--dry-run", "--list", "--delete", "--json")[1])
    assert [(each["action"], each["path"]) for each in told[1:3]] == [("replace", "file"), ("create", "folder")]
    assert cryo("restore", "latest", target, "--list")[0] == FAILED
    assert not (target / "folder").exists()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="takes a right away from root")
def test_a_root_that_may_not_give_files_away_restores_them_all_the_same(cryo, source, tmp_path):
    """As in many a container."""
    (source / "program").write_bytes(b"program")
    os.chown(source / "program", 1234, 1234)
    (source / "program").chmod(0o6755)
    cryo("backup", source)
    command = ["setpriv", "--bounding-set=-chown", "--inh-caps=-chown", *CRYO, "restore", "latest"]
    done = subprocess.run([*command, tmp_path / "target"], capture_output=True, text=True, check=False)
    assert done.returncode == WITH_ISSUES
    assert done.stderr == "program: the owner 1234:1234 cannot be set: Operation not permitted\n"
    made = (tmp_path / "target" / "program").stat()
    assert (made.st_uid, made.st_mode & 0o7777) == (0, 0o755)  # nobody's program runs as root
    assert (tmp_path / "target" / "program").read_bytes() == b"program"
