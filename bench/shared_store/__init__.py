"""Shared stores for measurement: nodes, PostgreSQL and S3, raw S3, round trips, and stores with many rows."""
