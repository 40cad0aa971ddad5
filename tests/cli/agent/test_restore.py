"""`cryo restore` of files and folders: targets, deletion, dry runs, and interruption."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess

import pytest

from cryostore.cli.exit_codes import FAILED, INTERRUPTED, OK, WITH_ISSUES
from cryostore.core.limits import MIB
from support.archives.agent import write
from support.processes.command_line import json_lines
from support.processes.serving import CRYO


def test_a_file_is_restored_in_place_or_into_a_folder(cryo, source, tmp_path):
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


def test_delete_is_refused_in_a_folder_that_was_backed_up_in_part(cryo, tmp_path):
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


def test_a_dry_run_lists_the_actions_of_a_restore(cryo, source, tmp_path):
    cryo("backup", source)
    target = tmp_path / "target"
    write(target, {"file": b"another", "extra": b""})
    code, out, _ = cryo("restore", "latest", target, "--dry-run", "--list", "--delete")
    assert code == OK
    assert out.splitlines()[:5] == ["+ \\x1b[2J\\x0a", "C file", "+ folder", "+ folder/other", "- extra"]
    told = json_lines(cryo("restore", "latest", target, "--dry-run", "--list", "--delete", "--json")[1])
    assert [(each["action"], each["path"]) for each in told[1:3]] == [("replace", "file"), ("create", "folder")]
    assert cryo("restore", "latest", target, "--list")[0] == FAILED
    assert not (target / "folder").exists()


def test_a_terminated_restore_leaves_no_half_written_file(cryo, source, tmp_path):
    write(source, {f"{number}": random.Random(number).randbytes(8 * MIB) for number in range(8)})
    cryo("backup", source)
    line = [*CRYO, "restore", "latest", tmp_path / "target", "--data-dir", tmp_path / "data"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("target/.cryo-restore-*")):  # stop it once a file is half written
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


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="takes a right away from root")
def test_root_without_the_right_to_change_owners_restores_files(cryo, source, tmp_path):
    """As in many containers."""
    (source / "program").write_bytes(b"program")
    os.chown(source / "program", 1234, 1234)
    (source / "program").chmod(0o6755)
    cryo("backup", source)
    command = ["setpriv", "--bounding-set=-chown", "--inh-caps=-chown", *CRYO, "restore", "latest"]
    done = subprocess.run([*command, tmp_path / "target"], capture_output=True, text=True, check=False)
    assert done.returncode == WITH_ISSUES
    assert done.stderr == "program: the owner 1234:1234 cannot be set: Operation not permitted\n"
    made = (tmp_path / "target" / "program").stat()
    assert (made.st_uid, made.st_mode & 0o7777) == (0, 0o755)  # a program of another user does not become root's
    assert (tmp_path / "target" / "program").read_bytes() == b"program"
