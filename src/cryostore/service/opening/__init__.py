"""Creating and opening stores, in a data directory or shared."""
