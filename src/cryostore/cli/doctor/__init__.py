"""`cryo doctor` and its checks, one file for each part of a set-up."""
