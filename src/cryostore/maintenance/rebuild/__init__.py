"""Rebuild of a lost catalog from packs and records."""
