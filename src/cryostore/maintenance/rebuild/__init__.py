"""Rebuilding a lost catalog from packs and records."""
