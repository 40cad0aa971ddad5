"""PostgreSQL as the catalog's database."""
