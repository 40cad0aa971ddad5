"""The machine that figures are measured on: its description, its page cache, its processes."""
