"""Tables of the catalog: one file for each noun."""
