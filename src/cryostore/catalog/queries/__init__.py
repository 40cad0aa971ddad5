"""Queries that join the tables of several nouns."""
