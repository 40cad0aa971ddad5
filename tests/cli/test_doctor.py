"""`cryo doctor`: it reports each fault with advice, and leaves nothing behind."""

from __future__ import annotations

import json
import os
from email.utils import formatdate

import msgspec
import pytest

from cryostore.agent.verification.resource_status import run_trial_job
from cryostore.cli import doctor
from cryostore.cli.agent_store import AgentStore, open_agent_store
from cryostore.cli.verbs import run
from cryostore.client import pages
from cryostore.client.client import health_of
from cryostore.core.digest import Payload
from cryostore.core.errors import CryostoreError
from cryostore.core.time import wall_clock
from cryostore.maintenance.diagnosis import ERROR, OK, WARNING
from cryostore.model.chunks import GetChunk
from cryostore.model.jobs import ListBackupJobs
from cryostore.model.recovery_points import ListRecoveryPointsByBackupVault
from cryostore.wire.message import Response
from support.processes.serving import serving
from support.stores.keyrings import BOTH, write_keyring


@pytest.fixture
def data(tmp_path):
    """A store in a directory."""
    with open_agent_store(AgentStore(tmp_path / "data", None, None), create=True):
        pass
    return tmp_path / "data"


@pytest.fixture
def doctored(capsys, monkeypatch):
    """Calls `cryo doctor`; returns its exit code, and its findings by subject."""
    monkeypatch.setattr(doctor, "_fuse", lambda: iter(()))  # the result must not depend on FUSE of this machine

    def call(*arguments):
        capsys.readouterr()
        code = run(["doctor", "--json", *map(os.fspath, arguments)])
        return code, {line["about"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}

    return call


def test_a_store_without_problems(doctored, data, capsys):
    code, said = doctored("--data-dir", data)
    assert {line["level"] for about, line in said.items() if about not in {"file system", "room"}} == {OK}
    assert said.keys() >= {"versions", "data directory", "file system", "room", "keyring", "vault", "trial"}
    assert code == max({OK: 0, WARNING: 1}[line["level"]] for line in said.values())
    run(["doctor", "--data-dir", str(data)])
    assert "trial: written, read back, aborted" in capsys.readouterr().out


def test_the_trial_leaves_no_recovery_point_and_no_job_open(doctored, data):
    doctored("--data-dir", data)
    with open_agent_store(AgentStore(data, None, None)) as call:
        assert not list(pages.items(call, ListRecoveryPointsByBackupVault(backup_vault_name="Default")))
        assert [job.state for job in pages.items(call, ListBackupJobs())] == ["ABORTED"]


def test_no_write_writes_nothing(doctored, data):
    _, said = doctored("--data-dir", data, "--no-write")
    assert "trial" not in said
    with open_agent_store(AgentStore(data, None, None)) as call:
        assert not list(pages.items(call, ListBackupJobs()))


def test_problems_of_a_directory(doctored, data, tmp_path):
    assert doctored("--data-dir", tmp_path / "none")[0] == 2
    data.chmod(0o755)
    (data / "keyring.json").chmod(0o640)
    code, said = doctored("--data-dir", data)
    assert code in {1, 2}
    assert (said["data directory"]["level"], said["data directory"]["advice"]) == (WARNING, f"chmod 700 {data}")
    assert said["keyring"]["level"] != OK
    (data / "keyring.json").rename(tmp_path / "lost")
    code, said = doctored("--data-dir", data)
    assert (code, said["keyring"]["level"]) == (2, ERROR)
    assert "trial" not in said


def test_a_copy_of_the_keyring_is_compared(doctored, data, tmp_path, monkeypatch):
    about = "copy of the keyring"
    copy = tmp_path / "copy"
    assert doctored("--data-dir", data, "--keyring-copy", copy)[1][about]["level"] == ERROR
    assert run(["key", "export", "--data-dir", str(data), "--to", str(copy)]) == 0
    assert doctored("--data-dir", data, "--keyring-copy", copy)[1][about]["level"] == WARNING, "on the same disk"
    assert run(["key", "rotate", "--data-dir", str(data)]) == 0
    said = doctored("--data-dir", data, "--keyring-copy", copy)[1][about]
    assert (said["level"], "lacks 1 of 2 keys" in said["found"]) == (ERROR, True)
    copy.write_text("no keyring")
    assert "holds no keyring" in doctored("--data-dir", data, "--keyring-copy", copy)[1][about]["found"]


def test_a_vault_that_is_missing(doctored, data):
    code, said = doctored("--data-dir", data, "--vault", "nowhere")
    assert (code, said["vault"]["level"]) == (2, ERROR)
    assert "create-backup-vault" in said["vault"]["advice"]


def test_a_server(doctored, tmp_path, monkeypatch, capsys):
    with serving(tmp_path / "served") as server:
        for name in ("AWS_ENDPOINT_URL", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, server.environment[name])
        code, said = doctored()
        assert (code, {line["level"] for line in said.values()}) == (0, {OK})
        assert said.keys() >= {"credentials", "endpoint", "clock", "connection", "vault", "trial"}
        (server.data_dir / "credentials").chmod(0o644)
        assert doctored()[0] == 1
        (server.data_dir / "credentials").chmod(0o600)
        _, said = doctored()
        assert str(server.data_dir / "credentials") in said["credentials"]["found"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        code, said = doctored()
        assert (code, said["credentials"]["level"]) == (2, ERROR)
        run(["doctor", "--json"])
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        source = next(line for line in told if line["about"] == "credentials")
        assert source["level"] == WARNING
        assert "AKIAUNKNOWN from the environment; it overrides" in source["found"]
        assert "unset AWS_ACCESS_KEY_ID" in source["advice"]
    code, said = doctored()
    assert (code, said["endpoint"]["level"]) == (2, ERROR)
    assert not said.keys() & {"store", "vault", "trial"}, "without a connection these are unknown"


def test_a_server_without_its_key_is_reported(doctored, tmp_path, monkeypatch):
    """The client's credentials are not the cause, and only the operator of the server can fix it."""
    with serving(tmp_path / "served") as server:
        for name in ("AWS_ENDPOINT_URL", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, server.environment[name])
        write_keyring(server.data_dir / "keyring.json", BOTH)
        code, said = doctored()
        (wrong,) = [line for line in said.values() if line["level"] != OK]
        assert (code, wrong["level"], wrong["about"]) == (2, ERROR, "server")
        assert "this server lacks master key" in wrong["found"]
        assert "the server's operator" in wrong["advice"]


def test_no_store_is_named(doctored, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("AWS_", "CRYO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    code, said = doctored()
    assert (code, said["settings"]["level"]) == (2, ERROR)


def test_a_store_that_returns_other_bytes_is_detected(data):
    class Liar:
        def __init__(self, inner):
            self.inner = inner

        def call(self, operation):
            answer = self.inner.call(operation)
            if isinstance(operation, GetChunk):
                return msgspec.structs.replace(answer, data=Payload(b"other"))
            return answer

    with open_agent_store(AgentStore(data, None, None)) as call:
        with pytest.raises(CryostoreError, match="other bytes than were written"):
            run_trial_job(Liar(call), "Default")
        assert [job.state for job in pages.items(call, ListBackupJobs())] == ["ABORTED"], "aborted nevertheless"


@pytest.mark.parametrize(("off", "level"), [(0, OK), (-50, OK), (100, WARNING), (-100, WARNING), (1000, ERROR)])
def test_clocks(off, level):
    now_ms = wall_clock()
    answer = Response(200, [("date", formatdate(now_ms / 1000 - off, usegmt=True))], Payload(b""))
    assert doctor._clock(health_of(answer), now_ms).level == level


def test_a_server_without_a_date_header():
    assert doctor._clock(health_of(Response(200, [], Payload(b""))), 0).level == WARNING


def test_another_service_at_the_address():
    for body in (b"<html>", b"[]", b"{}"):
        answer = Response(404, [], Payload(body))
        assert doctor._endpoint("http://host", health_of(answer)).level == WARNING
    other = Response(200, [], Payload(b'{"status":"ok","version":"0.0.0"}'))
    assert "upgrade" in doctor._endpoint("http://host", health_of(other)).advice


@pytest.mark.parametrize(
    ("url", "level"),
    [("http://127.0.0.1:1", OK), ("http://[::1]:1", OK), ("https://far.example", OK), ("http://far.example", WARNING)],
)
def test_encryption_of_the_connection(url, level):
    assert doctor._encryption(url).level == level
