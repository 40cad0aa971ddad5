"""Foundations that every layer shares: errors, digests, ids, time, limits, threads. Knows nothing of backup."""
