"""Lineages of jobs and the records that describe their commits."""
