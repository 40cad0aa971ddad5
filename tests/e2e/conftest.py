"""Fixtures of the tests that drive a whole server."""

from __future__ import annotations

from support.processes.serving import server  # noqa: F401 - a fixture is found by its name here
