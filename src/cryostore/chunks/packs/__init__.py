"""Packs: blobs that hold sealed chunks one behind the other."""
