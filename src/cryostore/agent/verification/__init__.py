"""Verification: whether recovery points can be restored, how current they are, and a trial job."""
