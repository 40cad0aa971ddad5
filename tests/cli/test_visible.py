"""Only one module prints, and it escapes text from outside, so that none acts on the terminal."""

from __future__ import annotations

import ast
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.cli import output
from cryostore.cli.verbs import run
from cryostore.core.errors import ConfigurationError
from cryostore.core.time import FrozenClock
from cryostore.server.monitoring.log import Log
from support import project

PRINTS = {"print", "input", "breakpoint"}
WRITES = {
    "click": {"echo", "secho", "echo_via_pager", "prompt", "confirm", "pause", "clear", "progressbar"},
    "stdout": {"write", "writelines", "buffer"},
    "stderr": {"write", "writelines", "buffer"},
    "traceback": {"print_exc", "print_exception", "print_stack", "print_tb"},
    "sys": {"excepthook", "displayhook", "__stdout__", "__stderr__"},
}
EVIL = "evil\x1b[2J\x1b]0;x\x07\x9b31m\u202e\u2066\x7f\r\nerror: forged\u2028\x85\t"


def printing(path):
    """The lines of a module that print."""
    for node in ast.walk(project.syntax(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PRINTS:
            yield node.lineno
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if node.attr in WRITES.get(owner, ()):
                yield node.lineno


def test_one_place_prints():
    found = {name: list(printing(path)) for name, path in project.source_modules().items()}
    assert len(found.pop("cryostore.cli.output")) > 5
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_texts_of_several_lines_are_made_in_one_place():
    """`paragraph` makes each line visible; a join of lines elsewhere would let a name begin one."""
    joined = [
        f"{name}:{node.lineno}"
        for name, path in project.source_modules().items()
        if name.startswith("cryostore.cli.") and name not in ("cryostore.cli.output", "cryostore.cli.reference.man")
        for node in ast.walk(project.syntax(path))
        if isinstance(node, ast.Attribute)
        and node.attr == "join"
        and isinstance(node.value, ast.Constant)
        and node.value.value == "\n"
    ]
    assert joined == []


@given(st.text())
def test_a_line_stays_one_line_of_printable_text(text):
    assert output.visible(text).isprintable()
    assert output.paragraph([text]).isprintable()


def test_what_is_printable_stays_as_it_is():
    assert output.visible("ä → 日本 \\x1b 'quoted'") == "ä → 日本 \\x1b 'quoted'"
    assert output.visible("a\x1b\x9b\u202e\n\x7f") == r"a\x1b\x9b\u202e\n\x7f"


@pytest.mark.parametrize("print_it", [output.show, output.show_now, output.tell, output.tell_over_progress])
def test_each_way_to_print_makes_visible(capsys, print_it):
    print_it(EVIL, *([] if print_it is output.tell_over_progress else [EVIL]))
    said = capsys.readouterr()
    lines = (said.out + said.err).splitlines()
    assert len(lines) == (1 if print_it is output.tell_over_progress else 2)
    assert all(line.isprintable() for line in lines)


def test_json_is_printable_ascii(capsys):
    output.say({EVIL: EVIL})
    output.tell_fact([EVIL])
    said = capsys.readouterr()
    assert json.loads(said.out) == {EVIL: EVIL}
    assert all(line.isascii() and line.isprintable() for line in said.out.splitlines() + said.err.splitlines())


def test_log_lines_are_made_visible(tmp_path):
    with (tmp_path / "log").open("wb") as file:
        log = Log(file.fileno(), clock=FrozenClock())
        log.write("error", EVIL, message=EVIL, good="ä 日本")
        log.close()
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.isprintable()
    assert json.loads(line)["message"] == EVIL
    assert "ä 日本" in line


def test_errors_are_made_visible(capsys, monkeypatch):
    def fail(*_, **__):
        raise ConfigurationError(EVIL, hint=EVIL)

    monkeypatch.setattr("cryostore.cli.verbs.cryo.main", fail)
    assert run([]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


class Hostile(BaseHTTPRequestHandler):
    """Answers whatever the test wants."""

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
        """Say nothing."""


@pytest.fixture
def hostile(monkeypatch):
    """Carries out a command line on a server that answers `answer` to everything; answers code, stdout, stderr."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAAAAAAAAAAAAAAAAA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("CRYO_DATA_DIR", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield ["--endpoint-url", f"http://127.0.0.1:{server.server_address[1]}"]
        server.shutdown()


def test_a_server_s_message_does_nothing_to_the_terminal(hostile, monkeypatch, capsys):
    monkeypatch.setattr(Hostile, "answer", (403, {"Message": EVIL, "Code": "AccessDeniedException"}))
    assert run(["points", *hostile]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(line.isprintable() for line in err.splitlines())
    assert not any(line.startswith("error: forged") for line in err.splitlines())


POINT = {"BackupVaultName": "v", "RecoveryPointArn": "arn:x:y:z:1:recovery-point:ID", "Status": "COMPLETED"}
POINT |= {"ResourceName": EVIL}


@pytest.mark.parametrize("number", [1e300, -1e300, 1e12, -1e11])
@pytest.mark.parametrize("verb", ["points", "status"])
def test_a_time_that_no_calendar_has_is_a_clear_error(hostile, monkeypatch, capsys, verb, number):
    vaults = {"BackupVaultList": [{"BackupVaultName": "v", "CreationDate": number}]}
    points = {"RecoveryPoints": [POINT | {"CreationDate": number}]}
    monkeypatch.setattr(Hostile, "answer", (200, vaults | points))
    assert run([verb, *hostile]) == 2
    err = capsys.readouterr().err
    assert "CreationDate is" in err
    assert "no time between the years 1 and 9999" in err


@pytest.mark.parametrize("number", [-62_135_596_800, 0, 253_402_300_799.0])
def test_the_ends_of_the_calendar_are_shown(hostile, monkeypatch, capsys, number):
    vaults = {"BackupVaultList": [{"BackupVaultName": "v"}]}
    monkeypatch.setattr(Hostile, "answer", (200, vaults | {"RecoveryPoints": [POINT | {"CreationDate": number}]}))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert run(["points", *hostile]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.rstrip("\n").isprintable()


def test_an_answer_that_is_larger_than_any_page_is_refused(hostile, monkeypatch, capsys):
    monkeypatch.setattr(Hostile, "answer", (200, {"x": "y" * 9 * 2**20}))
    assert run(["points", *hostile]) == 2
    assert "is too long" in capsys.readouterr().err
