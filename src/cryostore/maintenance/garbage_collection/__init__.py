"""Garbage collection: mark, sweep, compaction."""
