"""Bytes of an archive: blocks, rows, headers, and their sealed forms."""
