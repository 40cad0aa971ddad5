"""Keys of a real server: creation, rotation while it runs, removal and return."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing

import pytest

from cryostore.cli.verbs import run
from cryostore.model.chunks import GetChunk
from cryostore.model.errors import ServiceUnavailableException
from cryostore.model.vaults import ListBackupVaults
from support.processes.fake_process import wait_for
from support.processes.nodes import Nodes
from support.processes.serving import CRYO, serving
from support.requests.api import Api
from support.requests.scrutiny import check_log
from support.stores.in_process import opened
from support.stores.keyrings import BOTH, OLD_ALONE, write_keyring

DATA = b"what is in the backup"


def key(*arguments):
    """Run `cryo key` while the server runs."""
    assert run(["key", *map(str, arguments)]) == 0


def said(log):
    """Return the events of the log about a keyring that the server created."""
    return [line["event"] for line in check_log(log) if "keyring" in line["event"] or "losing" in line["event"]]


def test_the_log_explains_a_new_keyring_once(tmp_path):
    keyring = tmp_path / "keys.json"
    for workers in (2, 1):
        with serving(tmp_path / "data", "--keyring", str(keyring), "--workers", str(workers)) as server:
            lines = said(server.log)
            assert len(lines) == 2
            assert str(keyring) in lines[0]
            assert "losing it loses every backup" in lines[1]
    assert not (tmp_path / "data" / "keyring.json").exists()


def test_keys_rotate_while_a_server_runs(tmp_path, capsys):
    """Each of several workers has its own cache. Afterwards the old key is gone and all data can be read."""
    data_dir = tmp_path / "data"
    with serving(data_dir, "--workers", "2") as server, closing(server.client()) as client:
        api = Api(client, data_dir)
        arn = api.backup({"name": DATA})
        (old,) = json.loads((data_dir / "keyring.json").read_text())["keys"]
        key("rotate", "--data-dir", data_dir)
        key("forget", "--data-dir", data_dir, old)
        for _ in range(4):
            api.new_vault()
            assert api.restored(api.backup({"new": b"new"})) == {"new": b"new"}
        api.vault = "Default"
        key("rotate", "--data-dir", data_dir, "--vault", "Default")
        assert api.restored(arn) == {"name": DATA}
        key("rotate", "--data-dir", data_dir)
    with serving(data_dir, "--workers", "2") as server, closing(server.client()) as client:
        assert Api(client, data_dir).restored(arn) == {"name": DATA}
    assert old not in (data_dir / "keyring.json").read_text()


def test_a_server_without_its_key_serves_cached_vaults_and_recovers(tmp_path, capsys):
    data_dir, keyring, copy = tmp_path / "data", tmp_path / "keys.json", tmp_path / "copy.json"
    options = ("--keyring", str(keyring), "--workers", "1")
    with serving(data_dir, *options) as server, closing(server.client()) as client:
        api = Api(client, data_dir)
        known = api.backup({"name": DATA})
        other = Api(client, data_dir)
        other.new_vault()
        unknown = other.backup({"name": b"of the other"})
    with serving(data_dir, *options) as server, closing(server.client()) as client:
        api._call = other._call = client
        assert api.restored(known) == {"name": DATA}
        shutil.copy(keyring, copy)
        key("rotate", "--data-dir", data_dir, "--keyring", copy)
        job = other.restore(unknown)
        chunk = other.chunks(job, "name")[0]
        refusal = other.refuses(
            ServiceUnavailableException, GetChunk(storage_job_id=job, chunk_token=chunk.chunk_token)
        )
        assert str(tmp_path) not in refusal.message
        assert api.restored(known) == {"name": DATA}
        assert len(api.call(ListBackupVaults()).backup_vault_list) == 2
        shutil.copy(copy, keyring)
        assert other.read(job) == {"name": b"of the other"}
    log = server.log.read_text()  # complete once the server has ended: lines follow their responses
    told = [line for line in log.splitlines() if "no master key" in line and json.loads(line)]
    assert told, "the log says which key is missing"
    document = json.loads(copy.read_text())
    assert not any(secret in log for secret in document["keys"].values())


def test_a_server_reads_its_keyring_from_the_environment(tmp_path, monkeypatch):
    """Each worker reads its own environment, also after a restart."""
    monkeypatch.setenv("CRYOSTORE_TEST_KEYS", BOTH.encode().decode())
    for _ in range(2):
        with (
            serving(tmp_path / "data", "--keyring", "env:CRYOSTORE_TEST_KEYS", "--workers", "2") as server,
            closing(server.client()) as client,
        ):
            api = Api(client, tmp_path / "data")
            assert api.restored(api.backup({"name": DATA})) == {"name": DATA}
            check_log(server.log)


@pytest.mark.parametrize(
    ("trouble", "workers"),
    [("foreign", "1"), ("missing", "2"), ("open to others", "1"), ("garbage from a command", "2")],
)
def test_a_server_does_not_start_without_its_keyring(tmp_path, trouble, workers):
    """It prints an error and a hint without secrets, and starts once the keyring is back."""
    data_dir, keyring = tmp_path / "data", tmp_path / "keys.json"
    write_keyring(keyring, BOTH)
    with opened(data_dir, keyring=str(keyring)):
        pass
    place = str(keyring)
    if trouble == "foreign":
        write_keyring(keyring, OLD_ALONE)
    elif trouble == "missing":
        keyring.unlink()
    elif trouble == "open to others":
        keyring.chmod(0o644)
    else:
        place = "command:/bin/echo s3cret"
    command = [*CRYO, "serve", "--data-dir", str(data_dir), "--listen", "127.0.0.1:0", "--workers", workers]
    done = subprocess.run([*command, "--keyring", place], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"]
    assert "Traceback" not in done.stderr
    assert "s3cret" not in done.stderr
    write_keyring(keyring, BOTH)
    if trouble == "foreign":
        with serving(data_dir, "--keyring", str(keyring), "--workers", workers):
            pass


def test_a_running_server_gets_a_new_key_from_its_keyring_command(tmp_path, capsys):
    """The owner replaces the document and rotates the key; the server needs no restart."""
    data_dir, document = tmp_path / "data", tmp_path / "document"
    write_keyring(document, OLD_ALONE)
    place = f"command:/bin/cat {document}"
    with serving(data_dir, "--keyring", place, "--workers", "1") as server, closing(server.client()) as client:
        api = Api(client, data_dir)
        arn = api.backup({"name": DATA})
        write_keyring(document, BOTH)
        key("rotate", "--data-dir", data_dir, "--keyring", place)
        api.new_vault()
        assert api.restored(api.backup({"new": b"new"})) == {"new": b"new"}
        assert api.restored(arn) == {"name": DATA}
        check_log(server.log)
    write_keyring(document, BOTH.without("old"))
    with opened(data_dir, keyring=place) as store:
        assert store.api().restored(arn) == {"name": DATA}


def test_a_keyring_command_gets_no_secret(tmp_path):
    """Neither its arguments nor its environment contain one."""
    write_keyring(tmp_path / "document", BOTH)
    program = tmp_path / "program"
    program.write_text(
        f"#!{sys.executable} -I\nimport os, sys\n"
        f"open({str(tmp_path / 'seen')!r}, 'w').write(repr(sys.argv) + repr(os.environ))\n"
        f"print(open({str(tmp_path / 'document')!r}).read())\n"
    )
    program.chmod(0o700)
    with serving(tmp_path / "data", "--keyring", f"command:{program} fetch", "--workers", "1"):
        pass
    seen = (tmp_path / "seen").read_text()
    assert "fetch" in seen
    assert not any(secret in seen for secret in json.loads(BOTH.encode())["keys"].values())


@pytest.mark.stress
def test_a_rotation_of_a_shared_store_waits_for_every_node(tmp_path):
    """Each node has a keyring of its own. A node without the key in use is not ready and names the missing key."""
    (tmp_path / "blobs").mkdir()
    rings = [tmp_path / "ring0.json", tmp_path / "ring1.json"]
    place = {"CRYO_CATALOG": str(tmp_path / "catalog.sqlite"), "CRYO_BLOBS": str(tmp_path / "blobs")}
    environment = os.environ | place | {"CRYO_KEYRING": str(rings[0])}

    def cryo(*arguments):
        return subprocess.run([*CRYO, *arguments], env=environment, capture_output=True, text=True, check=False)

    assert cryo("init", "--credentials", str(tmp_path / "credentials")).returncode == 0
    shutil.copy(rings[0], rings[1])
    own = {number: {"CRYO_KEYRING": str(ring)} for number, ring in enumerate(rings)}
    with Nodes(tmp_path, environment, count=2, own=own) as nodes:

        def is_ready(number):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{nodes.places[number].watch_port}/-/ready", timeout=10):
                    return True
            except urllib.error.HTTPError as error:
                with error:
                    assert "lacks the master key in use" in error.read().decode()
                return False

        first = cryo("key", "rotate")
        assert first.returncode == 1
        assert "but not in use yet: these nodes lack it" in first.stdout
        assert is_ready(0)
        assert is_ready(1)
        old = rings[1].read_bytes()
        shutil.copy(rings[0], rings[1])
        second = cryo("key", "rotate")
        assert (second.returncode, "finished" in second.stdout) == (0, True)
        rings[1].write_bytes(old)
        wait_for(lambda: not is_ready(1))
        assert is_ready(0)
        shutil.copy(rings[0], rings[1])
        wait_for(lambda: is_ready(1))
        key_id = json.loads(rings[0].read_text())["active"]
        lines = [line for line in nodes.logged(1) if line["event"] == "key not available"]
        assert lines
        assert {line["key_id"] for line in lines} == {key_id}
