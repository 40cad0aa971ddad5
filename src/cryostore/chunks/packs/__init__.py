"""Packs: blobs that hold envelopes one behind the other. Format, writers, reader and recovery."""
