"""SQLite as the catalog's database, and what happens when its disk is full."""
