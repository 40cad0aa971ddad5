"""Verbs for agent keys, which encrypt backups."""
