"""A umask that takes everything away does not lock the owner of a store out of it."""

from __future__ import annotations

import stat
import subprocess
import sys


def test_a_store_is_its_owners_whatever_the_umask(tmp_path):
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
