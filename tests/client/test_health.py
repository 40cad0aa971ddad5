"""The health request to a server."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from cryostore import __version__
from cryostore.client.client import ask_health, health_of
from cryostore.client.settings import resolve
from cryostore.client.transport import ConnectionFailedError
from cryostore.core.digest import Payload
from cryostore.core.time import wall_clock
from cryostore.wire.message import Response
from support.processes.serving import serving

COVERS = ("client/client.py",)


def test_the_answer_of_a_server_is_decoded():
    body = Payload(b'{"status":"ok","version":"1.2"}')
    health = health_of(Response(200, [("date", formatdate(1_700_000_000, usegmt=True))], body))
    assert health == (200, True, "1.2", 1_700_000_000_000)
    assert health_of(Response(503, [], Payload(b'{"status":"failing"}'))) == (503, True, "", None)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'"text"', b"\xff"])
def test_the_answer_of_another_program_is_recognized(body):
    assert not health_of(Response(404, [("date", "soon")], Payload(body))).is_cryostore


def test_a_server_states_its_version_only_for_signed_requests(tmp_path):
    with serving(tmp_path / "served") as server:
        health = ask_health(resolve(server.environment), clock=wall_clock)
        assert (health.status, health.is_cryostore, health.version) == (200, True, __version__)
        assert abs(health.time_ms - wall_clock()) < 60_000
        stranger = server.environment | {"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN", "AWS_SECRET_ACCESS_KEY": "wrong"}
        assert ask_health(resolve(stranger), clock=wall_clock)[:3] == (200, True, "")
        settings = resolve(server.environment)
    with pytest.raises(ConnectionFailedError):
        ask_health(settings, clock=wall_clock)
