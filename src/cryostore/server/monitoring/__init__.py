"""Metrics, health probes, log lines, and the reporting of internal failures."""
