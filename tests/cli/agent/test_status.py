"""`cryo status`: the age of the last good recovery point of each resource, for people and for monitoring."""

from __future__ import annotations

import pytest

from cryostore.agent.archive.recovery_points import ROLE_ARN
from cryostore.agent.backup.job import open_job, resource_arn
from cryostore.cli.agent_store import AgentStore, open_agent_store
from cryostore.cli.exit_codes import FAILED, OK, WITH_ISSUES
from cryostore.core.errors import CryostoreError
from cryostore.core.time import span
from cryostore.model.jobs import CommitBackupJob, GetIncrementalBaseBackup, StartBackupJob
from support.processes.command_line import json_lines
from support.processes.serving import serving


@pytest.fixture
def cryo(cryo, source):
    """Carries out a command line; returns its exit code and stdout."""
    return lambda *arguments: cryo(*arguments)[:2]


@pytest.fixture
def store(cryo, tmp_path):
    """The store in process, with one recovery point of the resource `tree`."""
    assert cryo("backup", tmp_path / "source", "--resource", "tree")[0] == OK
    with open_agent_store(AgentStore(tmp_path / "data", None, None)) as call:
        yield call


def started(store, name="tree"):
    """Start a job of a resource and let it run; return its id."""
    operation = StartBackupJob(backup_vault_name="Default", resource_arn=resource_arn(name), iam_role_arn=ROLE_ARN)
    job_id = store.call(operation).backup_job_id
    store.call(GetIncrementalBaseBackup(backup_job_id=job_id))
    return job_id


def test_people_see_a_table(cryo, store):
    code, out = cryo("status")
    assert code == OK
    titles, row = out.splitlines()
    assert titles.split()[:2] == ["RESOURCE", "VAULT"]
    assert row.split()[:2] == ["tree", "Default"]
    started(store)
    assert "running since" in cryo("status")[1]


def test_an_empty_store_is_an_issue_only_with_a_maximum_age(cryo, tmp_path):
    assert cryo("status")[0] == FAILED, "a query creates no store"
    with open_agent_store(AgentStore(tmp_path / "data", None, None), create=True):
        pass
    assert cryo("status") == (OK, "no recovery point yet: `cryo backup PATH` makes one\n")
    assert cryo("status", "--max-age", "1h")[0] == WITH_ISSUES
    assert cryo("status", "--resource", "tree")[0] == WITH_ISSUES


def test_an_age_that_is_too_high_is_an_issue(cryo, store):
    assert cryo("status", "--max-age", "26h")[0] == OK
    code, out = cryo("status", "--max-age", "0s")
    assert code == WITH_ISSUES
    assert "tree: too old" in out
    code, out = cryo("status", "--max-age", "0s", "--json")
    assert code == WITH_ISSUES
    assert [line["too_old"] for line in json_lines(out)] == [True]
    assert cryo("status", "--max-age", "soon")[0] == FAILED


def test_one_resource_or_vault_alone(cryo, store):
    assert cryo("status", "--resource", "tree", "--max-age", "1h")[0] == OK
    assert cryo("status", "--resource", "other")[0] == WITH_ISSUES
    assert cryo("status", "--vault", "nowhere")[0] == FAILED


def test_a_failed_run_is_reported_until_one_succeeds(cryo, store, tmp_path):
    job_id = started(store)
    store.call(CommitBackupJob(backup_job_id=job_id, outcome="FAILED", status_message="the disk hums"))
    assert "failed: the disk hums" in cryo("status")[1]
    (line,) = json_lines(cryo("status", "--json")[1])
    assert (line["failed_job_id"], line["failed_message"]) == (job_id, "the disk hums")
    assert cryo("backup", tmp_path / "source", "--resource", "tree")[0] == OK
    assert "failed" not in cryo("status")[1]
    (line,) = json_lines(cryo("status", "--json")[1])
    assert (line["failed_job_id"], line["recovery_points"]) == (None, 2)


def test_the_issues_of_the_last_good_run_are_shown(cryo, store):
    store.call(CommitBackupJob(backup_job_id=started(store), issue_count=2))
    code, out = cryo("status", "--max-age", "1h")
    assert (code, out.splitlines()[-1]) == (OK, "tree: 2 items were skipped.")


def test_status_over_a_server(cryo, tmp_path, monkeypatch):
    monkeypatch.delenv("CRYO_DATA_DIR")
    with serving(tmp_path / "served") as server:
        for name in ("AWS_ENDPOINT_URL", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, server.environment[name])
        assert cryo("backup", tmp_path / "source", "--resource", "tree")[0] == OK
        code, out = cryo("status", "--json", "--max-age", "1h")
        assert code == OK
        assert [line["ResourceName"] for line in json_lines(out)] == ["tree"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172_800, "2 d"), (-1, "-1 s")],
)
def test_ages_as_text(seconds, words):
    assert span(seconds * 1000) == words


def test_no_key_is_needed(cryo, store, monkeypatch, tmp_path):
    """A monitoring system has no key of the agent, and cannot type its passphrase."""
    monkeypatch.setenv("CRYO_KEY_FILE", str(tmp_path / "nowhere"))
    assert cryo("status", "--max-age", "1h")[0] == OK


def test_a_damaged_point_is_an_issue_until_the_next_backup(cryo, store, tmp_path):
    """The damage is found by `check`; `cryo verify` then reports it without reading data."""
    (pack,) = (tmp_path / "data" / "packs").rglob("*.pack")
    content = pack.read_bytes()
    pack.unlink()
    assert cryo("status", "--max-age", "1h")[0] == OK, "no check has found it yet"
    assert cryo("check")[0] == WITH_ISSUES
    code, said = cryo("status", "--max-age", "1h")
    assert code == WITH_ISSUES
    assert "tree: the last good recovery point is damaged" in said
    assert json_lines(cryo("status", "--json")[1])[0]["damaged"] is True
    assert cryo("verify", "latest")[0] == WITH_ISSUES
    pack.write_bytes(content)
    assert cryo("scrub")[0] == OK
    assert cryo("verify", "latest")[0] == OK
    assert cryo("status", "--max-age", "1h")[0] == OK
    assert json_lines(cryo("status", "--json")[1])[0]["damaged"] is False


def test_names_of_other_machines_cannot_move_the_cursor(cryo, tmp_path):
    """Only the commit checks the name: a malicious machine can start a job under any name."""
    with open_agent_store(AgentStore(tmp_path / "data", None, None), create=True) as call:
        open_job(call, "Default", "evil\x9b31m\u202e", {}).give_up(CryostoreError("no"))
    code, out = cryo("status")
    assert code == OK
    assert "evil\\x9b31m\\u202e" in out
    assert out.replace("\n", "").isprintable()
