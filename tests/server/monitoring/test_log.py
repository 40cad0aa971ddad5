"""Log lines: whole, one JSON object each, and without delay for the caller."""

from __future__ import annotations

import errno
import json
import logging
import os
import warnings

import pytest

from cryostore.core.time import FrozenClock
from cryostore.server.monitoring import log as log_module
from cryostore.server.monitoring.log import LibraryHandler, Log, capture_libraries
from support.waiting import until


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def written(pipe, level="info", *, act, **settings):
    """The lines that `act` leaves in a log."""
    log = Log(pipe[1], clock=FrozenClock(1_700_000_000_123), level=level, **settings)
    act(log)
    log.close()
    return [json.loads(line) for line in os.read(pipe[0], 1_000_000).splitlines()]


def fail():
    raise RuntimeError("deep")


def test_a_line_has_time_level_event_and_the_fields_with_a_value(pipe):
    lines = written(pipe, act=lambda log: log.write("info", "request", status=200, error=None))
    assert lines == [{"time": "2023-11-14T22:13:20.123Z", "level": "info", "event": "request", "status": 200}]


def test_control_characters_cannot_forge_a_line(pipe):
    (line,) = written(pipe, act=lambda log: log.write("info", "request", access_key_id='x\n{"level":"\x1b[31m'))
    assert line["access_key_id"] == 'x\n{"level":"\x1b[31m'


def test_a_line_below_the_level_is_not_written(pipe):
    def act(log):
        log.write("debug", "a")
        log.write("info", "b")
        log.write("warning", "c")
        log.write("error", "d")

    assert [line["event"] for line in written(pipe, "warning", act=act)] == ["c", "d"]


def test_a_failure_has_its_traceback(pipe):
    def act(log):
        try:
            fail()
        except RuntimeError as error:
            log.failure("failure", error, request_id="R")

    (line,) = written(pipe, act=act)
    assert (line["level"], line["error"], line["request_id"]) == ("error", "RuntimeError", "R")
    assert line["traceback"].endswith("RuntimeError: deep\n")


def test_lines_beyond_the_limit_are_counted_and_dropped(pipe):
    def act(log):
        for number in range(5):
            log.write("info", str(number))

    lines = written(pipe, act=act, lines_waiting_max=2, batch_seconds=60)
    assert [line["event"] for line in lines] == ["0", "1", "log lines dropped"]
    assert lines[-1]["count"] == 3


def test_a_log_whose_reader_is_gone_raises_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    log = Log(writer, clock=FrozenClock())
    log.write("info", "into the void")
    log.close()
    os.close(writer)


def test_libraries_and_warnings_are_logged_as_lines(pipe):
    def act(log):
        capture_libraries(log)
        logging.getLogger("library").error("broke\n%s", "off")
        logging.getLogger("library").info("not shown")
        try:
            fail()
        except RuntimeError:
            logging.getLogger("library").exception("with a traceback")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("beware", stacklevel=1)

    lines = written(pipe, act=act)
    assert [line["event"].splitlines()[0] for line in lines[:2]] == ["broke", "with a traceback"]
    assert lines[0]["logger"] == "library"
    assert "RuntimeError: deep" in lines[1]["traceback"]
    assert "beware" in lines[2]["event"]


@pytest.mark.parametrize(("number", "name"), [(50, "error"), (35, "warning"), (5, "debug")])
def test_levels_of_libraries_are_mapped_downwards(pipe, number, name):
    def act(log):
        LibraryHandler(log).handle(logging.LogRecord("x", number, "f", 1, "m", None, None))

    assert [line["level"] for line in written(pipe, "debug", act=act)] == [name]


def test_lines_lost_on_a_full_disk_are_counted_and_no_line_starts_within_another(tmp_path, monkeypatch):
    path = tmp_path / "log"
    real = os.write
    room = [30]  # bytes

    def write(descriptor, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(log_module.os, "write", write)
    with path.open("wb") as file:
        log = Log(file.fileno(), clock=FrozenClock())
        for number in range(5):
            log.write("info", f"early {number}")
        until(lambda: log._dropped)
        room[0] = 1 << 30
        log.write("info", "late")
        log.close()
    torn, *lines = path.read_text().splitlines()
    assert len(torn) == 30
    assert [json.loads(line)["event"] for line in lines] == ["late", "log lines dropped"]
    assert json.loads(lines[1])["count"] == 5
