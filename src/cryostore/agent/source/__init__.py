"""Reading the source: which paths are backed up, the walk over the tree, and the content of its entries."""
