"""A backup run: its job, its base, its encryption policy, and the archive that it writes."""
