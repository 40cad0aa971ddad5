"""Reading archives: recovery points, the listing of entries, file content, differences."""
