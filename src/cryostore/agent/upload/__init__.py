"""Sending content: chunking, deduplication, and the objects that chunks make."""
