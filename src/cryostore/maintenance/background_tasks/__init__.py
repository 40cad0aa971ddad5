"""Periodic duties: one file for each noun whose rows change with time."""
