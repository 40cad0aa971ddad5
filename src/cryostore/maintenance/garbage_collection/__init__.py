"""Garbage collection: mark, sweep, compaction, removal of packs."""
