"""Options of the server: declarations, configuration file, reference page."""
