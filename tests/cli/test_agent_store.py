"""The store that an agent command names: making a new one, protecting it, and ending a run on it."""

from __future__ import annotations

import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cryostore.cli.agent_store import AgentStore, open_agent_store, recommend_key
from cryostore.cli.exit_codes import FAILED, OK
from cryostore.model.jobs import ListBackupJobs
from support.processes.serving import serving


def test_a_store_must_be_named(cryo, source, monkeypatch):
    monkeypatch.delenv("CRYO_DATA_DIR")
    code, _, err = cryo("backup", source)
    assert code == FAILED
    assert "hint: name a store with --data-dir DIR, or a server with --endpoint-url URL" in err


def test_a_folder_that_is_not_empty_does_not_become_a_store(cryo, source, tmp_path):
    code, _, err = cryo("backup", source / "folder", "--data-dir", tmp_path / "source")
    assert code == FAILED
    assert "is not a store, and not empty" in err
    assert {path.name for path in source.iterdir()} == {"\x1b[2J\n", "file", "folder"}
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)
    assert cryo("backup", source, "--data-dir", tmp_path / "disk")[0] == OK


def test_no_new_store_is_made_where_the_disk_of_a_store_is_not_mounted(cryo, source, tmp_path):
    """A link to another file system stands for the mounted disk, an empty folder for the mount point without it."""
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


def test_the_owner_can_use_a_store_that_was_made_under_any_umask(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"file")
    environment = {"HOME": str(tmp_path), "CRYO_DATA_DIR": str(tmp_path / "store"), "PATH": "/usr/bin:/bin"}
    for arguments in (["backup", tmp_path / "source"], ["restore", "latest", tmp_path / "target"]):
        command = [sys.executable, "-m", "cryostore", *map(str, arguments)]
        subprocess.run(command, env=environment, umask=0o777, check=True, capture_output=True)
    made = [tmp_path / "store", *(tmp_path / "store").rglob("*")]
    assert len(made) > 5
    for path in made:
        owner = stat.S_IRWXU if path.is_dir() else stat.S_IRUSR | stat.S_IWUSR
        assert path.stat().st_mode & owner == owner, path
        assert not path.stat().st_mode & 0o077
    assert (tmp_path / "target" / "file").read_bytes() == b"file"


def test_a_signal_interrupts_the_next_operation_and_none_after_it(monkeypatch, tmp_path):
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


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://backup.example.org", True),
        ("http://192.0.2.1:8600", True),
        ("http://127.0.0.1:8600", False),
        ("http://[::1]:8600", False),
        ("http://localhost:8600", False),
    ],
)
def test_a_key_is_recommended_for_a_server_elsewhere(tmp_path, capsys, url, said):
    recommend_key(AgentStore(None, url, None))
    assert capsys.readouterr().err.count("\n") == said
    recommend_key(AgentStore(None, url, None, tmp_path / "key"))
    recommend_key(AgentStore(tmp_path, None, None))
    assert capsys.readouterr().err == ""
