"""The quick start of the README and of the guide, run as printed, except for addresses and folders."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import record_session
import terminal_picture

from cryostore import backupstorage
from support.clients import compatibility
from support.clients.compatibility import start_job
from support.processes.serving import serving
from support.project import ROOT, fenced

pytestmark = pytest.mark.compat
URL = "http://127.0.0.1:8734"
SECONDS_MAX = 120
SERVER_PAGE = "docs/guide/server.md"
AWS_PAGE = "docs/guide/aws-tools.md"
RECORDING = ROOT / "docs" / "pictures" / "first-backup.cast"
FUNCTIONS_PAGE = "docs/reference/backupstorage.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The server of the quick start, with the same options, on a free port."""
    folder = tmp_path_factory.mktemp("readme")
    program, verb, *options = shlex.split(fenced(SERVER_PAGE, "quick start: serve"))
    assert (program, verb) == ("cryo", "serve")
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given == {"--data-dir": "./cryo-data", "--listen": URL.removeprefix("http://")}
    with serving(folder / "cryo-data") as running:
        yield running


def shell(script, server, *tools):
    """Run a block of a page in the folder that holds the data directory, with `cryo` and tools on the PATH.

    The folder is the home, too, and has documents in it.
    """
    home = server.data_dir.parent
    (home / "documents" / "letters").mkdir(parents=True, exist_ok=True)
    (home / "documents" / "letters" / "to mother").write_text("I am well.")
    path = [*tools, Path(sys.executable).parent, os.environ["PATH"]]
    environment = {name: value for name, value in server.environment.items() if not name.startswith("AWS_")}
    environment |= {"PATH": ":".join(map(str, path)), "AWS_CONFIG_FILE": os.devnull, "PAGER": "cat", "HOME": str(home)}
    environment.pop("XDG_STATE_HOME", None)
    return subprocess.run(
        ["bash", "-euc", script.replace(URL, server.url).replace("/mnt", str(home)).replace("/srv", str(home))],
        cwd=server.data_dir.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


def without_chance(output):
    """Return the output with placeholders for ids, times, sizes and the name of the machine."""
    output = re.sub(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}", "ID", output)
    output = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", output)
    return re.sub(r"\S+:(?=/)", "HOST:", re.sub(r" +[0-9.]+ [KM]?B", " SIZE", output))


def test_a_folder_is_backed_up_into_a_directory_and_restored(server):
    """The block with the five commands: it prints what the page shows, and restores what was backed up."""
    run = shell("exec 2>&1\n" + fenced("README.md", "quick start: folder"), server)
    assert run.returncode == 0, run.stdout
    home = server.data_dir.parent
    assert f"copy {home}/backup/keyring.json elsewhere" in run.stdout
    assert (home / "restored" / "letters" / "to mother").read_text() == "I am well."
    shown = fenced("README.md", "quick start: folder output").replace("/mnt", str(home)).replace("/srv", str(home))
    assert without_chance(run.stdout) == without_chance(shown)


def test_the_picture_shows_what_a_run_prints(tmp_path):
    """The recorded commands print the recorded output again, except for numbers."""
    recorded = [json.loads(line) for line in RECORDING.read_text(encoding="utf-8").splitlines()[1:]]
    again = record_session.record(record_session.COMMANDS, tmp_path)
    assert lines_of(again) == lines_of(recorded)


def lines_of(events):
    """Return the lines on a terminal after the events of a recording, without parts that differ between runs."""
    lines = terminal_picture.screen([text for _, _, text in events])
    return [re.sub(r"\d+", "N", re.sub(r"[\d.]+ (?:[KMG]i)?B", "SIZE", without_chance(line))) for line in lines]


def test_a_folder_is_backed_up_to_the_server(server):
    """The block with the doctor and the age of the last good backup."""
    run = shell(fenced(SERVER_PAGE, "quick start: agent"), server)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "trial: written, read back, aborted" in run.stdout
    assert "recovery point" in run.stdout
    assert "LAST GOOD" in run.stdout


def test_two_variables_point_any_aws_tool_to_the_server(server, sdk_current):
    """The block with the two variables lists the vault named Default."""
    run = shell(fenced(AWS_PAGE, "quick start: aws"), server, sdk_current / "bin")
    assert run.returncode == 0, run.stderr
    assert '"BackupVaultName": "Default"' in run.stdout


def test_current_aws_cli_learns_the_service(server, sdk_current):
    """After the block, `aws backupstorage` exists, extensions included."""
    script = fenced(AWS_PAGE, "quick start: aws") + fenced(AWS_PAGE, "quick start: sdk-model")
    script = script.replace("aws backupstorage help", "aws backupstorage help | cat")
    run = shell(script, server, sdk_current / "bin")
    assert run.returncode == 0, run.stderr
    assert "put-chunk" in run.stdout
    assert "commit-backup-job" in run.stdout


def test_python_block_stores_an_object(server, monkeypatch):
    """The function of the page stores an object that can be listed."""
    for name in ("AWS_ENDPOINT_URL", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, server.environment[name])
    names = {}
    exec(compile(fenced(AWS_PAGE, "quick start: python"), AWS_PAGE, "exec"), names)
    with server.client() as client:
        job_id = start_job(client)
        names["back_up"](job_id, "notes.txt", b"read me")
        listed = names["backupstorage"].list_objects(job_id)
        assert [item["Name"] for item in listed["ObjectList"]] == ["notes.txt"]
        compatibility.commit_and_restore(client, job_id)


def test_the_example_of_each_function_works(server, monkeypatch):
    """In the order of their use, which is not the order on the page."""
    for name in ("AWS_ENDPOINT_URL", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, server.environment[name])
    used = ["start_object", "put_chunk", "notify_object_complete", "put_object", "list_objects", "list_chunks"]
    used += ["get_chunk", "get_object_metadata", "delete_object"]
    page = (ROOT / FUNCTIONS_PAGE).read_text(encoding="utf-8")
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == sorted(used)
    with server.client() as client:
        names = {"backupstorage": backupstorage, "sha256": sha256, "job_id": start_job(client)}
        for function in used:
            exec(compile(fenced(FUNCTIONS_PAGE, f"example: {function}"), FUNCTIONS_PAGE, "exec"), names)
        listed = backupstorage.list_objects(names["job_id"])
        assert [item["Name"] for item in listed["ObjectList"]] == ["disk.img"]
        compatibility.commit_and_restore(client, names["job_id"])
