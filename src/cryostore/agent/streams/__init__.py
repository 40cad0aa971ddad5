"""Backups of a stream, a command's output, or a disk."""
