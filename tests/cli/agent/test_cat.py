"""`cryo cat`: one file of a recovery point to stdout."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cryostore.cli.agent_store import AgentStore, open_agent_store
from cryostore.cli.exit_codes import FAILED
from support.archives.agent import Runs
from support.processes.serving import CRYO


def test_a_file_of_a_tree_is_written_to_stdout(cryo_process, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"content")
    (tmp_path / "tree" / b"\xff\x1b[2J".decode("utf-8", "surrogateescape")).write_bytes(b"named")
    cryo_process("backup", "tree")
    assert cryo_process("cat", "latest:file")[0] == b"content"
    assert cryo_process("cat", f"latest:{tmp_path}/tree/file")[0] == b"content"
    assert cryo_process("cat", os.fsencode("latest:") + b"\xff\x1b[2J")[0] == b"named"
    assert "does not contain 'x'" in cryo_process("cat", "latest:x", code=2)[1]
    assert "name one file of it" in cryo_process("cat", "latest", code=2)[1]
    cryo_process("backup", "--stdin", "--name", "s", stdin=b"")
    _, err = cryo_process("restore", "latest", tmp_path / "out", "--delete", code=2)
    assert "only for files and folders" in err


def test_a_full_disk_behind_stdout_is_reported(source, tmp_path):
    with open_agent_store(AgentStore(tmp_path / "data", None, None), create=True) as call:
        Runs(call).backup(source)
    line = [*CRYO, "cat", "latest:file", "--data-dir", tmp_path / "data"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == FAILED
    assert done.stderr.startswith("error: cannot write to stdout: No space left on device\n")
