"""Fixtures of the client's tests."""

from __future__ import annotations

from support.serving import server  # noqa: F401 - a fixture is found by its name here
