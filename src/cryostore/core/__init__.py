"""The words every layer shares: errors, digests, ids, time, limits. Standard library only; knows nothing of backup."""
