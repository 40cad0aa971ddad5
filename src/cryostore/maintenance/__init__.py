"""Maintenance of a store: background tasks, garbage collection, verification, rebuild, migration, key rotation.

All of it may run at any moment, in any process, any number of times. None of it removes data that a recovery point or
an open job can still see.
"""
