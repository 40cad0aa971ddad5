"""Options of a server and of the commands that open a store: declarations, sources, reference page."""
