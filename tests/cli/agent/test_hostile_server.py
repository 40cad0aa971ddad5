"""Agent verbs on a server that sends escape sequences, impossible times and oversized responses."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cryostore.cli.verbs import run

EVIL = "evil\x1b[2J\x1b]0;x\x07\x9b31m\u202e\u2066\x7f\r\nerror: forged\u2028\x85\t"
POINT = {"BackupVaultName": "v", "RecoveryPointArn": "arn:x:y:z:1:recovery-point:ID", "Status": "COMPLETED"}
POINT |= {"ResourceName": EVIL}


class Hostile(BaseHTTPRequestHandler):
    """A server that responds with `answer` to every request."""

    answer = (200, {})

    def do_GET(self):
        status, document = self.answer
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("x-amzn-errortype", "AccessDeniedException")
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Log nothing."""


@pytest.fixture
def hostile(monkeypatch):
    """The options of a command line that name a server with the given `answer`."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAAAAAAAAAAAAAAAAA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("CRYO_DATA_DIR", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield ["--endpoint-url", f"http://127.0.0.1:{server.server_address[1]}"]
        server.shutdown()


def test_an_error_of_the_server_does_not_control_the_terminal(hostile, monkeypatch, capsys):
    monkeypatch.setattr(Hostile, "answer", (403, {"Message": EVIL, "Code": "AccessDeniedException"}))
    assert run(["points", *hostile]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(line.isprintable() for line in err.splitlines())
    assert not any(line.startswith("error: forged") for line in err.splitlines())


@pytest.mark.parametrize("number", [1e300, -1e300, 1e12, -1e11])
@pytest.mark.parametrize("verb", ["points", "status"])
def test_an_impossible_time_is_a_clear_error(hostile, monkeypatch, capsys, verb, number):
    vaults = {"BackupVaultList": [{"BackupVaultName": "v", "CreationDate": number}]}
    points = {"RecoveryPoints": [POINT | {"CreationDate": number}]}
    monkeypatch.setattr(Hostile, "answer", (200, vaults | points))
    assert run([verb, *hostile]) == 2
    err = capsys.readouterr().err
    assert "CreationDate is" in err
    assert "no time between the years 1 and 9999" in err


@pytest.mark.parametrize("number", [-62_135_596_800, 0, 253_402_300_799.0])
def test_the_first_and_last_possible_times_are_shown(hostile, monkeypatch, capsys, number):
    vaults = {"BackupVaultList": [{"BackupVaultName": "v"}]}
    monkeypatch.setattr(Hostile, "answer", (200, vaults | {"RecoveryPoints": [POINT | {"CreationDate": number}]}))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert run(["points", *hostile]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.rstrip("\n").isprintable()


def test_a_response_that_is_larger_than_any_page_is_refused(hostile, monkeypatch, capsys):
    monkeypatch.setattr(Hostile, "answer", (200, {"x": "y" * 9 * 2**20}))
    assert run(["points", *hostile]) == 2
    assert "is too long" in capsys.readouterr().err
