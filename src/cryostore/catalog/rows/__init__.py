"""Rows of the catalog's tables: one file per noun, with every statement on it."""
