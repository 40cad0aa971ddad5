"""The catalog on PostgreSQL."""
