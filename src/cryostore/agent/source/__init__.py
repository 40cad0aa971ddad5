"""Reading the source tree: walk, entries, patterns."""
