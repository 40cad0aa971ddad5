"""Behaviour of the operations: one file for each noun of the API."""
