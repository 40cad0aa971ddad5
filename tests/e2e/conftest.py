"""Fixtures of tests that use a real server process."""

from __future__ import annotations

from support.processes.serving import server  # noqa: F401 - a fixture is found by its name here
