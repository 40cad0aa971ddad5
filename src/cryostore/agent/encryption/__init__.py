"""End-to-end encryption of the agent: its keys, the files and objects that hold them, and sealed chunks."""
