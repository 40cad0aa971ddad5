"""Sending content to the store: chunking, deduplication, and the objects of a job."""
