"""Verbs for the agent's own keys."""
