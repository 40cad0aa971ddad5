"""Recovery points as a read-only file system (FUSE) and as block devices (NBD)."""
