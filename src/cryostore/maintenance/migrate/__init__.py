"""Copying a store to another place."""
