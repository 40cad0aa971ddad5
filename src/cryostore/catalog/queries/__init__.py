"""Queries over several tables."""
