"""Commands that run a server or work on a store themselves."""
