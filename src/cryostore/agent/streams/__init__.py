"""Backup runs over a stream, the output of a command, or a disk."""
