"""Verbs of the agent: back up, list, restore, verify and mount."""
