"""Periodic background tasks of a server."""
