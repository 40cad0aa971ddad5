"""Restore runs: of a file tree, and of a single file such as a stream or disk."""
