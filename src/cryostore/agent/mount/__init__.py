"""Recovery points as a read-only file system and as block devices."""
