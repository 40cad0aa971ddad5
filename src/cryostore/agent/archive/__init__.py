"""Reading an archive: entries, trees, file content, differences, and the points that hold it."""
