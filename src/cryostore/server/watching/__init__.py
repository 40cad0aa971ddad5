"""Metrics, probes, logs, and the words for failures."""
