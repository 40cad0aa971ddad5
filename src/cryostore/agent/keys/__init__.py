"""Keys of the agent: key files, archive keys, and who can unwrap them."""
