"""Migration of a store to another place."""
