"""Behaviour of the operations: one module or folder for each noun of the API."""
